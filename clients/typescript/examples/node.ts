// hears a room in Node.js 22 or later, says one thing, and leaves. With Node.js 20, give the `WebSocket` of `ws`.

import { connect, GapReason } from "@trestle/client";
import { CommentSchema } from "../build/stubs/typescript/chat/v1/chat_pb.js";

const client = connect("ws://127.0.0.1:8080/ws");
const room = client.channel("room:42", { since: { last: 20 } });
room.on(CommentSchema, ({ author, text }, { offset }) => console.log(`${offset} ${author}: ${text}`));
room.onGap(({ from, to, reason }) => console.log(`missing ${from} to ${to}: ${GapReason[reason]}`));
const { offset } = await room.publish(CommentSchema, { author: "node", text: "hi" });
console.log(`published at ${offset}`);
await client.close();
