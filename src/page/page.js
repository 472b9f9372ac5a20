// What is on the page: forms to frames, frames to what is shown.
import { Connection } from './connection.js';
import { FrameLog, element } from './log.js';

const COMMENTS_MAX = 200;
const RECEIPTS_MAX = 5;

const at = (id) => document.getElementById(id);
const url = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`;
const gateway = new Connection(url);
const log = new FrameLog(at('frames'), at('totals'));
let sessionId = '';
let channel = '';

// --- the connection ---------------------------------------------------------------------------------------------

const encoding = () => document.querySelector('input[name=encoding]:checked').value;

gateway.addEventListener('state', ({ detail }) => {
  const { state } = detail;
  at('status').dataset.state = state;
  at('status').textContent = {
    connecting: () => 'Connecting',
    connected: () => 'Connected',
    waiting: () => `Reconnecting in ${(detail.retryMs / 1000).toFixed(1)} s: ${detail.why}`,
    closed: () => `Closed: ${detail.why}`,
  }[state]();
  at('toggle').textContent = state === 'closed' ? 'Connect' : 'Disconnect';
  for (const button of document.querySelectorAll('form button')) button.disabled = state !== 'connected';
  if (state !== 'connected') {
    for (const fact of ['session', 'node', 'user', 'rtt']) at(fact).textContent = '-';
    channel = '';
    return;
  }
  sessionId = detail.sessionId;
  at('session').textContent = detail.sessionId;
  at('node').textContent = detail.node || '-';
  at('user').textContent = detail.user || 'anonymous';
  join(at('join').channel.value);
});
gateway.addEventListener('frames', ({ detail }) => log.add(detail));
gateway.addEventListener('rtt', ({ detail }) => { at('rtt').textContent = `${detail.toFixed(1)} ms`; });
gateway.addEventListener('error', ({ detail }) => show(at('raw-result'), refusal(detail), true));

at('toggle').addEventListener('click', () => {
  if (at('toggle').textContent === 'Connect') gateway.open(encoding());
  else gateway.close();
});
for (const radio of document.querySelectorAll('input[name=encoding]')) {
  radio.addEventListener('change', () => {
    sessionStorage.encoding = encoding();
    gateway.open(encoding());
  });
}
addEventListener('online', () => gateway.hurry());

// --- the chat ---------------------------------------------------------------------------------------------------

async function join(wanted) {
  try {
    if (channel && channel !== wanted) await gateway.ask({ unsubscribe: { channel } });
    const { subscribed } = await gateway.ask({ subscribe: { channel: wanted } });
    if (channel !== wanted) note(`joined ${wanted}${told(subscribed.offset) ? `, which is at #${subscribed.offset}` : ''}`);
    channel = wanted;
    show(at('chat-result'), '');
  } catch (fault) {
    show(at('chat-result'), sentence(fault), true);
  }
}

at('join').addEventListener('submit', (event) => {
  event.preventDefault();
  join(at('join').channel.value.trim());
});

at('comment').addEventListener('submit', async (event) => {
  event.preventDefault();
  const { text, author } = at('comment');
  sessionStorage.author = author.value;
  const payload = { text: text.value, author: author.value };
  text.value = '';
  try {
    await gateway.ask({ publish: { channel: at('join').channel.value.trim(), message: { messageType: 'chat.v1.Comment', payload } } });
    show(at('chat-result'), '');
  } catch (fault) {
    text.value ||= payload.text; // a refused comment is not lost
    show(at('chat-result'), sentence(fault), true);
  }
});

gateway.addEventListener('gap', ({ detail }) => {
  note(`missed ${told(detail.count) ? `${detail.count} messages` : 'some messages'} of ${detail.channel} (${detail.reason})`);
});

gateway.addEventListener('delivery', ({ detail: envelope }) => {
  if (envelope.messageType === 'chat.v1.Comment') comment(envelope);
  else if (envelope.messageType === 'shop.v1.Receipt') receipt(envelope.payload ?? {});
  else note(`${envelope.messageType}: ${JSON.stringify(envelope.payload ?? envelope.payloadBase64)}`);
});

function comment({ payload = {}, time, offset, source }) {
  const item = element('li', { className: source?.session === sessionId ? 'mine' : 'theirs' });
  const head = element('p', { className: 'head' });
  head.append(
    element('b', { textContent: payload.author || 'somebody' }),
    element('time', { dateTime: time ?? '', textContent: (time ? new Date(time) : new Date()).toTimeString().slice(0, 5) }),
  );
  if (told(offset)) head.append(element('span', { textContent: `#${offset}`, title: 'offset in the channel' }));
  item.append(head, element('p', { className: 'text', textContent: payload.text ?? '' }));
  append(at('comments'), item, COMMENTS_MAX);
}

function note(text) {
  append(at('comments'), element('li', { className: 'note', textContent: text }), COMMENTS_MAX);
}

// --- the services -----------------------------------------------------------------------------------------------

/** Sends what the form says when it is submitted, and shows what came of it. */
function onSubmit(form, frameOf, answerOf) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const result = form.querySelector('output');
    show(result, 'sent');
    const begun = performance.now();
    try {
      const answer = await gateway.ask(frameOf(form));
      show(result, `${answerOf(answer)} · ${(performance.now() - begun).toFixed(1)} ms`);
    } catch (fault) {
      show(result, sentence(fault), true);
    }
  });
}

const accepted = (answer) => `accepted: ${answer.accepted.level}`;
const message = (messageType, payload, version = '1.0') => ({ message: { messageType, version, payload } });

at('order').version.addEventListener('change', ({ target }) => {
  at('order').currency.disabled = target.value === '1.0';
});
onSubmit(at('order'), ({ orderId, cents, version, currency }) => message(
  'ORDER_PAID',
  version.value === '1.0'
    ? { orderId: orderId.value, cents: cents.value }
    : { orderId: orderId.value, total: { currency: currency.value, cents: cents.value } },
  version.value,
), accepted);

onSubmit(at('quote'), ({ sku, quantity }) => ({
  request: { ...message('GET_QUOTE', { sku: sku.value, quantity: Number(quantity.value) }), timeout: '5s' },
}), ({ reply }) => `${money(reply.payload?.cents)} for ${reply.payload?.sku}`);

onSubmit(at('inventory'), ({ sku, change }) => message('INVENTORY_UPDATED', { sku: sku.value, change: Number(change.value) }), accepted);

onSubmit(at('user-created'), ({ userId, email }) => message('USER_CREATED', { userId: userId.value, email: email.value }), accepted);

function receipt({ orderId = '', cents = '0', currency = '', orderVersion = '' }) {
  const item = element('li');
  item.append(
    element('b', { textContent: `Receipt ${orderId}` }),
    element('span', { textContent: `${money(cents)} ${currency}` }),
    element('span', { className: 'to', textContent: `for version ${orderVersion}` }),
  );
  append(at('receipts'), item, RECEIPTS_MAX);
}

/** `1999` -> `19.99`; by text, as 64-bit numbers do not fit a JavaScript number. */
function money(cents = '0') {
  const digits = String(cents).replace('-', '').padStart(3, '0');
  return `${String(cents).startsWith('-') ? '-' : ''}${digits.slice(0, -2)}.${digits.slice(-2)}`;
}

// --- the frames -------------------------------------------------------------------------------------------------

at('raw').addEventListener('submit', (event) => {
  event.preventDefault();
  try {
    gateway.send(JSON.parse(at('raw').frame.value));
    show(at('raw-result'), '');
  } catch (fault) {
    show(at('raw-result'), fault.message, true);
  }
});
at('pings').addEventListener('change', ({ target }) => { log.pings = target.checked; });
at('clear').addEventListener('click', () => log.clear());
at('pause').addEventListener('click', ({ target }) => {
  const paused = target.getAttribute('aria-pressed') !== 'true';
  target.setAttribute('aria-pressed', String(paused));
  log.paused = paused;
});

// --- shared -----------------------------------------------------------------------------------------------------

function show(output, text, bad = false) {
  output.textContent = text;
  output.classList.toggle('bad', bad);
}

/** Whether a 64-bit number is there; protobuf leaves out a zero, and so may JSON. */
const told = (number) => number !== undefined && number !== '0';
const refusal = ({ reason, field, message: said }) => [reason, field, said].filter(Boolean).join(' · ');
const sentence = (fault) => (fault.error ? refusal(fault.error) : fault.message);

/** Appends, lets the oldest go beyond `most`, and follows the end unless the reader has scrolled up. */
function append(list, item, most) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(item);
  while (list.childElementCount > most) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

at('comment').author.value = sessionStorage.author ?? `guest-${Math.floor(Math.random() * 900 + 100)}`;
if (sessionStorage.encoding) document.querySelector(`input[name=encoding][value=${sessionStorage.encoding}]`).checked = true;
gateway.open(encoding());
