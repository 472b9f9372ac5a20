// leaver.js URL connected|waiting: connects, and closes in that state; a timer left behind would keep the process for an hour.

import { WebSocket } from "ws";
import { CommentSchema } from "../build/stubs/typescript/chat/v1/chat_pb.js";
import { connect } from "../src/index.js";

const [, , url = "", how = ""] = process.argv;
const hour = 3_600_000;
const client = connect(url, { WebSocket, reconnect: { base: hour, cap: hour }, connectTimeout: hour, pongTimeout: hour });
client.on("state", async ({ name }) => {
  if (name !== how) return;
  const closing = client.close();
  await closing;
  console.log("closed");
});
client.channel("room:1").on(CommentSchema, () => {});
client.publish("room:1", CommentSchema, { text: "never answered" }).catch(() => {});
