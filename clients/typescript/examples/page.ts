// A room, an order and a price, against the gateway's demo: `cargo run`, then `npm run example`.

import { connect, GapReason, TrestleError } from "@trestle/client";
import { CommentSchema } from "../build/stubs/typescript/chat/v1/chat_pb.js";
import { GetQuoteSchema, OrderPaidSchema, QuoteSchema, ReceiptSchema } from "../build/stubs/typescript/shop/v1/shop_pb.js";

const query = new URLSearchParams(location.search);
const client = connect(query.get("gateway") ?? "ws://127.0.0.1:8080/ws", query.has("token") ? { token: query.get("token") ?? "" } : {});
const room = client.channel(query.get("channel") ?? "room:42", { since: { last: 20 }, presence: true });

const element = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;

function show(text: string, kind: string): void {
  const item = document.createElement("li");
  item.className = kind;
  item.textContent = text;
  element("log").append(item);
}

/** Runs `what` when the form is sent, and shows why it could not be done. */
function onSubmit(id: string, what: (text: string) => Promise<void>): void {
  element<HTMLFormElement>(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const input = element<HTMLFormElement>(id).querySelector("input") as HTMLInputElement;
    try {
      await what(input.value);
      input.value = "";
    } catch (error) {
      show(error instanceof TrestleError ? `${error.reason}: ${error.message}` : String(error), "refused");
    }
  });
}

client.on("state", (state) => {
  const status = element("state");
  status.dataset["state"] = state.name;
  if (state.name === "connected") status.textContent = `${state.resumed ? "resumed" : "connected"}: ${state.sessionId} on ${state.node}`;
  else if (state.name === "waiting") status.textContent = `lost (${state.why.reason}), again at ${state.until.toLocaleTimeString()}`;
  else status.textContent = state.name === "closed" ? `closed: ${state.why.reason}` : state.name;
});
client.on(ReceiptSchema, ({ orderId, cents }) => show(`receipt for ${orderId}: ${cents} cents`, "receipt"));
room.on(CommentSchema, ({ author, text }, { offset }) => show(`${author}: ${text} (${offset})`, "comment"));
room.onGap(({ from, to, reason }) => show(`missing ${from} to ${to}: ${GapReason[reason]}`, "gap"));
room.onPresence(({ sessions }) => (element("presence").textContent = `${sessions} here`));
room.onError((error) => show(`${error.reason}: ${error.message}`, "refused"));

onSubmit("comment", async (text) => void (await room.publish(CommentSchema, { author: "page", text })));
onSubmit("order", async (orderId) => void (await client.send(OrderPaidSchema, { orderId, cents: 1999n })));
onSubmit("quote", async (sku) => {
  const { cents } = await client.request(GetQuoteSchema, { sku, quantity: 1 }, QuoteSchema, { timeout: 2000 });
  show(`${sku} costs ${cents} cents`, "quote");
});
element("close").addEventListener("click", () => void client.close());
