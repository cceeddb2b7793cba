import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, soon } from '../support/deadline.js';
import { Inbox, body, drainBodies, fill, numbers } from '../support/messages.js';
import { channelError, foreignBroker, session } from '../support/session.js';

test('prefetch 1 gives a slow consumer one message and a fast one the rest', async (t) => {
  const s = await session(t);
  const publisher = await s.confirmChannel();
  const queue = await s.queue(publisher, 'work');
  const [slow, fast] = [await s.channel(), await s.channel()];
  for (const channel of [slow, fast]) await channel.prefetch(1);
  const slowInbox = await Inbox.open(slow, queue);
  const fastInbox = await Inbox.open(fast, queue);

  await fill(publisher, queue, numbers(20), { persistent: true });
  const held = await slowInbox.take();
  const done = [];
  for (const message of await takeAcking(fast, fastInbox, 19)) done.push(body(message));

  assert.equal(slowInbox.waiting.length, 0, 'the slow consumer holds one unacknowledged message only');
  assert.deepEqual([body(held), ...done].sort(), numbers(20).sort());
  slow.ack(held);
  await eventually(async () => (await publisher.checkQueue(queue)).messageCount === 0, 'the queue is empty');
});

test('messages are dealt out in turn to consumers without a prefetch limit', async (t) => {
  const s = await session(t);
  const publisher = await s.confirmChannel();
  const queue = await s.queue(publisher, 'turns');
  const inboxes = [];
  for (let consumer = 0; consumer < 3; consumer++) inboxes.push(await Inbox.open(await s.channel(), queue, { noAck: true }));

  await fill(publisher, queue, numbers(30));
  for (const inbox of inboxes) {
    const bodies = (await inbox.takeMany(10)).map(body).map(Number);
    assert.deepEqual(bodies, bodies.toSorted((a, b) => a - b), 'each consumer sees its share in order');
  }
});

test('a prefetch limit holds for consumers started after it', async (t) => {
  const s = await session(t);
  const publisher = await s.confirmChannel();
  const queue = await s.queue(publisher, 'limits');
  const channel = await s.channel();
  await channel.prefetch(3);
  const limited = await Inbox.open(channel, queue);
  await fill(publisher, queue, numbers(5));
  const first = await limited.takeMany(3);
  assert.equal((await publisher.checkQueue(queue)).messageCount, 2, 'two messages stay ready');

  await channel.prefetch(0);
  const unlimited = await Inbox.open(channel, queue);
  assert.deepEqual((await unlimited.takeMany(2)).map(body), ['4', '5']);
  assert.equal(limited.waiting.length, 0);
  channel.ack(first[2], true);
  await fill(publisher, queue, numbers(1));
});

test('a global prefetch limit is shared by the consumers of the channel', { skip: foreignBroker }, async (t) => {
  const s = await session(t);
  const publisher = await s.confirmChannel();
  const [one, two] = [await s.queue(publisher, 'one'), await s.queue(publisher, 'two')];
  const channel = await s.channel();
  await channel.prefetch(2, true);
  const [first, second] = [await Inbox.open(channel, one), await Inbox.open(channel, two)];
  await fill(publisher, one, ['a', 'b', 'c']);
  await first.takeMany(2);
  await fill(publisher, two, ['d']);
  assert.equal((await publisher.checkQueue(two)).messageCount, 1, 'the limit is used up by the other consumer');

  channel.ackAll();
  assert.equal(body(await second.take()), 'd');
  assert.equal(body(await first.take()), 'c');
});

test('basic.get reports what is left, and false for an empty queue', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'get');
  assert.equal(await channel.get(queue), false);

  await fill(channel, queue, ['a', 'b']);
  const first = await channel.get(queue);
  assert.equal(body(first), 'a');
  assert.deepEqual(
    { ...first.fields },
    { deliveryTag: 1, redelivered: false, exchange: '', routingKey: queue, messageCount: 1 },
  );
  const second = await channel.get(queue, { noAck: true });
  assert.equal(second.fields.messageCount, 0);
  assert.equal(second.fields.deliveryTag, 2);
  assert.equal(await channel.get(queue), false);
});

test('requeued messages return to their place, marked as redelivered', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'requeue');
  await fill(channel, queue, numbers(5));
  const taken = [];
  for (let count = 0; count < 3; count++) taken.push(await channel.get(queue));

  channel.nack(taken[1], false, true);
  const again = await channel.get(queue);
  assert.equal(body(again), '2', 'the requeued message is ahead of the ones behind it');
  assert.equal(again.fields.redelivered, true);
  channel.nack(again, true, true);
  const order = [];
  for (let count = 0; count < 5; count++) order.push(await channel.get(queue));
  assert.deepEqual(order.map(body), numbers(5));
  assert.deepEqual(order.map((message) => message.fields.redelivered), [true, true, true, false, false]);
});

test('a consumer that refuses everything gets it again in the same order', async (t) => {
  const s = await session(t);
  const publisher = await s.confirmChannel();
  const queue = await s.queue(publisher, 'refuse');
  const channel = await s.channel();
  await channel.prefetch(10);
  const inbox = await Inbox.open(channel, queue);
  await fill(publisher, queue, numbers(10));
  await inbox.takeMany(10);
  channel.nackAll(true);
  const again = await inbox.takeMany(10);
  assert.deepEqual(again.map(body), numbers(10));
  assert.ok(again.every((message) => message.fields.redelivered));
});

test('reject requeues or drops one message', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'reject');
  await fill(channel, queue, ['keep', 'drop']);
  const [keep, drop] = [await channel.get(queue), await channel.get(queue)];
  channel.reject(keep, true);
  channel.reject(drop, false);
  assert.deepEqual(await drainBodies(channel, queue), ['keep']);
});

test('acknowledging up to a delivery leaves the later ones outstanding', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'multiple');
  await fill(channel, queue, numbers(5));
  const taken = [];
  for (let count = 0; count < 5; count++) taken.push(await channel.get(queue));
  channel.ack(taken[2], true);
  await channel.recover();
  assert.deepEqual(await drainBodies(channel, queue), ['4', '5']);
});

test('closing a channel or a connection requeues what it did not acknowledge', async (t) => {
  const s = await session(t);
  const publisher = await s.confirmChannel();
  const queue = await s.queue(publisher, 'unacked');
  await fill(publisher, queue, numbers(4));

  const channel = await s.channel();
  const inbox = await Inbox.open(channel, queue);
  const taken = await inbox.takeMany(4);
  channel.ack(taken[0]);
  await channel.close();
  const other = await s.connect();
  const otherInbox = await Inbox.open(await s.channel(other), queue);
  const again = await otherInbox.takeMany(3);
  assert.deepEqual(again.map(body), ['2', '3', '4']);
  assert.ok(again.every((message) => message.fields.redelivered));
  await other.close();
  await eventually(async () => (await publisher.checkQueue(queue)).messageCount === 3, 'the messages are ready again');
});

test('a channel the broker closes requeues what it did not acknowledge', async (t) => {
  const s = await session(t);
  const publisher = await s.confirmChannel();
  const queue = await s.queue(publisher, 'closed');
  await fill(publisher, queue, numbers(2));
  const channel = await s.channel();
  const inbox = await Inbox.open(channel, queue);
  await inbox.takeMany(2);
  const error = await channelError(channel, () => channel.checkQueue(s.name('absent')));
  assert.equal(error.code, 404);
  await eventually(async () => (await publisher.checkQueue(queue)).messageCount === 2, 'the messages are ready again');
});

test('purge and delete count ready messages only', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'counts');
  await fill(channel, queue, numbers(6));
  const held = await channel.get(queue);
  assert.deepEqual({ ...(await channel.purgeQueue(queue)) }, { messageCount: 5 });
  channel.nack(held, false, true);
  await fill(channel, queue, numbers(2));
  assert.deepEqual({ ...(await channel.deleteQueue(queue)) }, { messageCount: 3 });
  assert.deepEqual({ ...(await channel.deleteQueue(queue)) }, { messageCount: 0 }, 'deleting an absent queue succeeds');
});

test('declare reports messages and consumers', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'declared');
  await fill(channel, queue, numbers(3));
  const { consumerTag } = await Inbox.open(await s.channel(), queue, { consumerTag: 'mine' });
  assert.equal(consumerTag, 'mine');
  const declared = await channel.assertQueue(queue);
  assert.deepEqual({ ...declared }, { queue, messageCount: 0, consumerCount: 1 });
});

async function takeAcking(channel, inbox, count) {
  const messages = [];
  while (messages.length < count) {
    const message = await soon(inbox.take(), 'the fast consumer to get another message');
    channel.ack(message);
    messages.push(message);
  }
  return messages;
}
