import assert from 'node:assert/strict';
import { test } from 'node:test';
import { soon } from '../support/deadline.js';
import { Inbox, body, confirmed, drainBodies, fill, numbers } from '../support/messages.js';
import { channelError, session } from '../support/session.js';

test('an unroutable mandatory message is returned, then confirmed', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const key = s.name('nowhere');
  const events = [];
  channel.on('return', (message) => events.push(['return', message]));
  channel.on('ack', ({ deliveryTag }) => events.push(['ack', deliveryTag]));
  channel.on('nack', ({ deliveryTag }) => events.push(['nack', deliveryTag]));

  const outcome = await confirmed(channel, 'amq.direct', key, 'lost', { mandatory: true, messageId: 'm1', headers: { a: 1 } });
  assert.equal(outcome, null, 'confirmed, not refused');
  assert.deepEqual(events.map(([kind]) => kind), ['return', 'ack']);
  const returned = events[0][1];
  assert.deepEqual({ ...returned.fields }, { replyCode: 312, replyText: 'NO_ROUTE', exchange: 'amq.direct', routingKey: key });
  assert.equal(body(returned), 'lost');
  assert.equal(returned.properties.messageId, 'm1');
  assert.deepEqual(returned.properties.headers, { a: 1 });
  assert.equal(events[1][1], 1, 'the first message after confirm.select is number 1');
});

test('an unroutable message that is not mandatory is confirmed without a return', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  channel.on('return', () => assert.fail('nothing is returned'));
  for (const exchange of ['', 'amq.direct', 'amq.fanout']) {
    assert.equal(await confirmed(channel, exchange, s.name('nowhere'), 'lost'), null);
  }
});

test('a mandatory message that reaches a queue is not returned', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  channel.on('return', () => assert.fail('nothing is returned'));
  const queue = await s.queue(channel, 'there');
  await fill(channel, queue, ['x'], { mandatory: true });
  assert.deepEqual(await drainBodies(channel, queue), ['x']);
});

test('returns also reach a channel without confirms', async (t) => {
  const s = await session(t);
  const channel = await s.channel();
  const returned = new Promise((resolve) => channel.once('return', resolve));
  channel.publish('', s.name('nowhere'), Buffer.alloc(0), { mandatory: true });
  const { fields, content } = await soon(returned, 'a return');
  assert.equal(fields.replyCode, 312);
  assert.equal(content.length, 0);
});

test('a full queue with reject-publish refuses messages', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'full', { maxLength: 2, overflow: 'reject-publish' });
  const outcomes = [];
  for (const content of numbers(4)) outcomes.push((await confirmed(channel, '', queue, content)) === null);
  assert.deepEqual(outcomes, [true, true, false, false]);
  assert.deepEqual(await drainBodies(channel, queue), ['1', '2']);
  assert.equal(await confirmed(channel, '', queue, '5'), null, 'there is room again');
});

test('a message one of its queues refuses is refused, though the other keeps it', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const exchange = await s.exchange(channel, 'two', 'fanout');
  const full = await s.queue(channel, 'full', { maxLength: 0, overflow: 'reject-publish' });
  const open = await s.queue(channel, 'open');
  for (const queue of [full, open]) await channel.bindQueue(queue, exchange, '');
  const refused = await confirmed(channel, exchange, '', 'x', { mandatory: true });
  assert.ok(refused instanceof Error);
  assert.deepEqual(await drainBodies(channel, open), ['x']);
});

test('a byte limit refuses what does not fit', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const args = { 'x-max-length-bytes': 10, 'x-overflow': 'reject-publish' };
  const queue = await s.queue(channel, 'bytes', { arguments: args });
  assert.equal(await confirmed(channel, '', queue, '1234567'), null);
  assert.ok((await confirmed(channel, '', queue, '1234')) instanceof Error);
  assert.equal(await confirmed(channel, '', queue, '123'), null);
});

test('the confirms outstanding when a channel closes never come', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  assert.equal(await confirmed(channel, '', s.name('nowhere'), 'x'), null);
  const outcome = confirmed(channel, s.name('no-exchange'), '', 'x');
  const error = await channelError(channel, () => {});
  assert.equal(error.code, 404);
  assert.ok((await outcome) instanceof Error);
});

test('100 publishers at once lose nothing and keep their order', async (t) => {
  const PUBLISHERS = 100;
  const MESSAGES = 50;
  const s = await session(t);
  const setup = await s.channel();
  const queue = await s.queue(setup, 'many');
  const consumer = await s.channel(await s.connect());
  await consumer.prefetch(500);
  const received = Array.from({ length: PUBLISHERS }, () => []);
  let count = 0;
  const complete = new Promise((resolve) => {
    consumer.consume(queue, (message) => {
      consumer.ack(message);
      received[message.properties.headers.publisher].push(Number(body(message)));
      if (++count === PUBLISHERS * MESSAGES) resolve();
    });
  });

  const connections = await Promise.all(Array.from({ length: 10 }, () => s.connect()));
  const publish = async (publisher) => {
    const channel = await s.confirmChannel(connections[publisher % connections.length]);
    const acked = [];
    for (let number = 1; number <= MESSAGES; number++) {
      const options = { headers: { publisher }, persistent: publisher % 2 === 0 };
      acked.push(confirmed(channel, '', queue, String(number), options));
    }
    assert.ok((await Promise.all(acked)).every((refusal) => refusal === null));
  };
  await Promise.all(received.map((_, publisher) => publish(publisher)));
  await soon(complete, 'every message');

  const expected = numbers(MESSAGES).map(Number);
  for (const [publisher, order] of received.entries()) assert.deepEqual(order, expected, `publisher ${publisher}`);
  assert.equal((await setup.checkQueue(queue)).messageCount, 0);
});

test('deleting the queue does not leave its publishers waiting', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'deleted');
  const inbox = await Inbox.open(await s.channel(), queue);
  for (const content of numbers(20)) channel.sendToQueue(queue, Buffer.from(content), { persistent: true });
  await channel.deleteQueue(queue);
  await soon(channel.waitForConfirms(), 'publisher confirms');
  await inbox.take();
});
