// socket.io with rooms, over WebSocket alone. Event `s` joins a room and is acknowledged, `p` is sent to a room as event `m`.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, {
  transports: ["websocket"],
  // Off by default in version 4; said because it decides.
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
  // The default of 45 s would part from clients when thousands connect at once on a busy machine.
  connectTimeout: 120_000,
});

// As its guide to memory usage says: the HTTP request of the handshake is not kept.
io.engine.on("connection", (socket) => {
  socket.request = null;
});

io.on("connection", (socket) => {
  socket.on("s", (room, done) => {
    socket.join(room);
    done();
  });
  socket.on("p", (room, payload) => io.to(room).emit("m", payload));
});

http.listen({ port: Number(process.env.PORT), host: "127.0.0.1", backlog: 4096 });
