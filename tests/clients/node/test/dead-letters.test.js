import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../support/deadline.js';
import { Inbox, body, confirmed, drainBodies, fill } from '../support/messages.js';
import { session } from '../support/session.js';

/** A queue with those options whose dead letters are read from `inbox`. */
async function deadLettering(t, options, publishOptions = {}) {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const exchange = await s.exchange(channel, 'dlx', 'fanout');
  const dead = await s.queue(channel, 'dead');
  await channel.bindQueue(dead, exchange, '');
  const queue = await s.queue(channel, 'source', { deadLetterExchange: exchange, ...options });
  const inbox = await Inbox.open(await s.channel(), dead, { noAck: true });
  const send = (content, more = {}) => confirmed(channel, '', queue, content, { ...publishOptions, ...more });
  return { s, channel, exchange, dead, queue, inbox, send };
}

/** Checks the dead letter's history and resolves with its newest entry. */
function assertDeath(message, { queue, reason, exchange = '', routingKeys, count = 1, expiration }) {
  const { headers } = message.properties;
  for (const which of ['first', 'last']) {
    assert.equal(headers[`x-${which}-death-queue`], queue);
    assert.equal(headers[`x-${which}-death-reason`], reason);
    assert.equal(headers[`x-${which}-death-exchange`], exchange);
  }
  assert.equal(headers['x-death'].length, 1);
  const [death] = headers['x-death'];
  const { time, ...rest } = death;
  const original = expiration === undefined ? {} : { 'original-expiration': expiration };
  assert.deepEqual(rest, { ...original, count, reason, queue, exchange, 'routing-keys': routingKeys });
  const order = ['count', 'reason', 'queue', 'time', 'exchange', 'routing-keys'];
  assert.deepEqual(Object.keys(death), [...Object.keys(original), ...order]);
  assert.equal(time['!'], 'timestamp');
  assert.ok(Math.abs(time.value - Date.now() / 1000) < 30, 'the time is in seconds');
}

test('a queue TTL sends messages to the dead-letter exchange', async (t) => {
  const { queue, exchange, inbox, send } = await deadLettering(t, { messageTtl: 100 });
  await send('x', { headers: { own: 'kept' }, persistent: true, priority: 3, messageId: 'id' });
  const message = await inbox.take();
  assertDeath(message, { queue, reason: 'expired', routingKeys: [queue] });
  assert.equal(body(message), 'x');
  assert.equal(message.fields.exchange, exchange);
  assert.equal(message.fields.routingKey, queue);
  assert.equal(message.fields.redelivered, false);
  const { headers, deliveryMode, priority, messageId } = message.properties;
  assert.deepEqual({ own: headers.own, deliveryMode, priority, messageId }, { own: 'kept', deliveryMode: 2, priority: 3, messageId: 'id' });
});

test('a message TTL moves to the history', async (t) => {
  const { queue, inbox, send } = await deadLettering(t, {});
  await send('x', { expiration: '100' });
  const message = await inbox.take();
  assertDeath(message, { queue, reason: 'expired', routingKeys: [queue], expiration: '100' });
  assert.equal(message.properties.expiration, undefined);
});

test('the shorter of the two TTLs counts', async (t) => {
  const { inbox, send } = await deadLettering(t, { messageTtl: 200 });
  await send('queue', { expiration: '60000' });
  assert.equal(body(await inbox.take()), 'queue');
});

test('a TTL of 0 lets a message through to a waiting consumer only', async (t) => {
  const { s, queue, inbox, send } = await deadLettering(t, { messageTtl: 0 });
  await send('dead');
  assert.equal(body(await inbox.take()), 'dead');
  const consumer = await Inbox.open(await s.channel(), queue, { noAck: true });
  await send('alive');
  assert.equal(body(await consumer.take()), 'alive');
});

test('rejected messages are dead-lettered under the routing key of the queue', async (t) => {
  const { s, channel, exchange, queue, inbox, send } = await deadLettering(t, { deadLetterRoutingKey: 'graveyard' });
  const other = await s.exchange(channel, 'origin', 'topic');
  await channel.bindQueue(queue, other, '#');
  assert.equal(await confirmed(channel, other, 'a.b', 'x'), null);
  channel.reject(await channel.get(queue), false);
  const message = await inbox.take();
  assertDeath(message, { queue, reason: 'rejected', exchange: other, routingKeys: ['a.b'] });
  assert.equal(message.fields.exchange, exchange);
  assert.equal(message.fields.routingKey, 'graveyard');

  for (const content of ['1', '2']) await send(content);
  await channel.get(queue);
  channel.nack(await channel.get(queue), true, false);
  assert.deepEqual([body(await inbox.take()), body(await inbox.take())], ['1', '2'], 'nack of several keeps their order');
});

test('a length limit drops the oldest messages into the dead-letter exchange', async (t) => {
  const { channel, queue, inbox, send } = await deadLettering(t, { maxLength: 2 });
  for (const content of ['1', '2', '3', '4']) await send(content);
  const message = await inbox.take();
  assertDeath(message, { queue, reason: 'maxlen', routingKeys: [queue] });
  assert.equal(body(message), '1');
  assert.equal(body(await inbox.take()), '2');
  assert.deepEqual(await drainBodies(channel, queue), ['3', '4']);
});

test('a byte limit drops as many of the oldest as needed', async (t) => {
  const { channel, queue, inbox, send } = await deadLettering(t, { arguments: { 'x-max-length-bytes': 10 } });
  for (const content of ['aaaa', 'bbbb', 'cccccccc']) await send(content);
  assert.deepEqual([body(await inbox.take()), body(await inbox.take())], ['aaaa', 'bbbb']);
  assert.deepEqual(await drainBodies(channel, queue), ['cccccccc']);
});

test('unacknowledged messages do not count towards the length limit', async (t) => {
  const { channel, queue, inbox, send } = await deadLettering(t, { maxLength: 1 });
  await send('held');
  const held = await channel.get(queue);
  await send('ready');
  assert.equal((await channel.checkQueue(queue)).messageCount, 1);
  channel.nack(held, false, true);
  assert.equal(body(await inbox.take()), 'held', 'the requeued message is the oldest one');
});

test('reject-publish-dlx refuses the message and dead-letters it', async (t) => {
  const { channel, queue, inbox, send } = await deadLettering(t, { maxLength: 1, overflow: 'reject-publish-dlx' });
  assert.equal(await send('1'), null);
  assert.ok((await send('2')) instanceof Error);
  const message = await inbox.take();
  assert.equal(body(message), '2');
  assertDeath(message, { queue, reason: 'maxlen', routingKeys: [queue] });
  assert.deepEqual(await drainBodies(channel, queue), ['1']);
});

test('a message that dies again and again counts its deaths, newest first', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const [work, retry] = [s.name('work'), s.name('retry')];
  await s.queue(channel, 'work', { deadLetterExchange: '', deadLetterRoutingKey: retry });
  await s.queue(channel, 'retry', { messageTtl: 20, deadLetterExchange: '', deadLetterRoutingKey: work });
  const inbox = await Inbox.open(channel, work);
  await fill(channel, work, ['x']);
  let message;
  for (let attempt = 1; attempt <= 3; attempt++) {
    message = await inbox.take();
    if (attempt < 3) channel.reject(message, false);
  }
  const { headers } = message.properties;
  assert.deepEqual(
    headers['x-death'].map(({ queue, reason, count, exchange, 'routing-keys': keys }) => ({ queue, reason, count, exchange, keys })),
    [
      { queue: retry, reason: 'expired', count: 2, exchange: '', keys: [retry] },
      { queue: work, reason: 'rejected', count: 2, exchange: '', keys: [work] },
    ],
  );
  assert.equal(headers['x-first-death-queue'], work);
  assert.equal(headers['x-first-death-reason'], 'rejected');
  assert.equal(headers['x-last-death-queue'], retry);
  assert.equal(headers['x-last-death-reason'], 'expired');
  channel.ack(message);
});

test('a message that expires in a circle is dropped', async (t) => {
  const { s, channel, inbox } = await deadLettering(t, {});
  const circle = s.name('circle');
  const exchange = await s.exchange(channel, 'around', 'fanout');
  await s.queue(channel, 'circle', { messageTtl: 50, deadLetterExchange: exchange });
  await channel.bindQueue(circle, exchange, '');
  const witness = await s.queue(channel, 'witness');
  await channel.bindQueue(witness, exchange, '');
  await fill(channel, circle, ['x']);
  await eventually(async () => (await channel.checkQueue(witness)).messageCount === 1, 'the message expired');
  assert.equal((await channel.checkQueue(circle)).messageCount, 0, 'the message does not return to its queue');
  assert.equal(inbox.waiting.length, 0);
});

test('a dead-letter exchange that does not exist loses the message', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'lost', { deadLetterExchange: s.name('no-exchange') });
  await fill(channel, queue, ['1', '2']);
  channel.reject(await channel.get(queue), false);
  assert.deepEqual(await drainBodies(channel, queue), ['2']);
});

test('an x-death header a client sends is not taken for history', async (t) => {
  const { queue, channel, inbox, send } = await deadLettering(t, {});
  await send('x', { headers: { 'x-death': [{ queue, reason: 'rejected', count: 7 }] } });
  channel.reject(await channel.get(queue), false);
  assertDeath(await inbox.take(), { queue, reason: 'rejected', routingKeys: [queue] });
});

test('dead letters keep the CC keys they were published with', async (t) => {
  const { s, channel, queue, inbox } = await deadLettering(t, {});
  const copy = s.name('cc');
  await confirmed(channel, '', queue, 'x', { CC: [copy], BCC: [s.name('bcc')] });
  channel.reject(await channel.get(queue), false);
  assertDeath(await inbox.take(), { queue, reason: 'rejected', routingKeys: [queue, copy] });
});
