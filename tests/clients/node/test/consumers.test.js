import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../support/deadline.js';
import { Inbox, body, confirmed, drainBodies, fill, numbers } from '../support/messages.js';
import { channelError, session } from '../support/session.js';

test('a priority queue hands out the highest priority first', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'priority', { maxPriority: 5 });
  for (const priority of [1, 5, undefined, 3, 9, 0, 5]) {
    const index = String(priority);
    assert.equal(await confirmed(channel, '', queue, index, { priority }), null);
  }
  assert.deepEqual(await drainBodies(channel, queue), ['5', '9', '5', '3', '1', 'undefined', '0']);
});

test('a full priority queue drops the head of its highest priority', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'priority', { maxPriority: 5, maxLength: 2 });
  for (const priority of [1, 5, 1]) await confirmed(channel, '', queue, String(priority), { priority });
  assert.deepEqual(await drainBodies(channel, queue), ['1', '1']);
});

test('a cancelled consumer gets nothing more and can still acknowledge', async (t) => {
  const s = await session(t);
  const publisher = await s.confirmChannel();
  const queue = await s.queue(publisher, 'cancel');
  const channel = await s.channel();
  const inbox = await Inbox.open(channel, queue, { consumerTag: 'worker' });
  await fill(publisher, queue, ['1']);
  const held = await inbox.take();
  assert.deepEqual({ ...(await channel.cancel('worker')) }, { consumerTag: 'worker' });
  await fill(publisher, queue, ['2']);
  assert.deepEqual({ ...(await publisher.checkQueue(queue)) }, { queue, messageCount: 1, consumerCount: 0 });
  channel.ack(held);
  assert.deepEqual({ ...(await channel.cancel('unknown')) }, { consumerTag: 'unknown' }, 'cancelling an unknown tag succeeds');
  await channel.close();
  assert.deepEqual(await drainBodies(publisher, queue), ['2']);
  assert.equal(inbox.waiting.length, 0);
});

test('a cancelled tag can be used again, an active one not', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'tags');
  await Inbox.open(channel, queue, { consumerTag: 'tag' });
  await channel.cancel('tag');
  const inbox = await Inbox.open(channel, queue, { consumerTag: 'tag', noAck: true });
  await fill(channel, queue, ['x']);
  assert.equal((await inbox.take()).fields.consumerTag, 'tag');
  const generated = await Inbox.open(channel, queue);
  assert.match(generated.consumerTag, /^amq\.ctag-[A-Za-z0-9_-]{22}$/);
});

test('the broker cancels the consumers of a queue that is deleted', async (t) => {
  const s = await session(t);
  const channel = await s.channel();
  const queue = await s.queue(channel, 'deleted');
  const inboxes = [await Inbox.open(channel, queue), await Inbox.open(await s.channel(await s.connect()), queue)];
  await (await s.channel()).deleteQueue(queue);
  for (const inbox of inboxes) assert.equal(await inbox.take(), null);
  await channel.assertQueue(queue);
  assert.equal((await channel.checkQueue(queue)).consumerCount, 0, 'the channel goes on');
});

test('a channel deletes the durable queue that it consumes from', async (t) => {
  const s = await session(t);
  const channel = await s.channel();
  const queue = await s.queue(channel, 'own', { durable: true });
  const inbox = await Inbox.open(channel, queue);
  assert.deepEqual({ ...(await channel.deleteQueue(queue)) }, { messageCount: 0 });
  assert.equal(await inbox.take(), null);
  await channel.assertQueue(queue, { durable: true });
  assert.equal((await channel.checkQueue(queue)).consumerCount, 0, 'the channel goes on');
});

test('consumers of higher priority are served first', async (t) => {
  const s = await session(t);
  const publisher = await s.confirmChannel();
  const queue = await s.queue(publisher, 'preferred');
  const [low, high] = [await s.channel(), await s.channel()];
  for (const channel of [low, high]) await channel.prefetch(2);
  const lowInbox = await Inbox.open(low, queue, { priority: -1 });
  const highInbox = await Inbox.open(high, queue, { priority: 10 });
  await fill(publisher, queue, numbers(2));
  const held = await highInbox.takeMany(2);
  await fill(publisher, queue, ['3']);
  assert.equal(body(await lowInbox.take()), '3', 'the lower one helps out when the higher one is busy');
  high.ack(held[1], true);
  await high.checkQueue(queue);
  await fill(publisher, queue, ['4']);
  assert.equal(body(await highInbox.take()), '4');
  assert.equal(lowInbox.waiting.length, 0);
});

test('only one consumer of a single-active-consumer queue is active at a time', async (t) => {
  const s = await session(t);
  const publisher = await s.confirmChannel();
  const queue = await s.queue(publisher, 'single', { arguments: { 'x-single-active-consumer': true } });
  const [first, second] = [await s.channel(), await s.channel()];
  const firstInbox = await Inbox.open(first, queue);
  const secondInbox = await Inbox.open(second, queue);
  await fill(publisher, queue, numbers(3));
  const taken = await firstInbox.takeMany(3);
  assert.equal(secondInbox.waiting.length, 0);
  first.ack(taken[0]);
  await first.close();
  const rest = await secondInbox.takeMany(2);
  assert.deepEqual(rest.map(body), ['2', '3']);
  await fill(publisher, queue, ['4']);
  assert.equal(body(await secondInbox.take()), '4');
});

test('an exclusive consumer keeps others away until it is cancelled', async (t) => {
  const s = await session(t);
  const setup = await s.channel();
  const queue = await s.queue(setup, 'exclusive');
  const refused = { code: 403, text: `ACCESS_REFUSED - queue '${queue}' in vhost '/' in exclusive use` };
  const owner = await s.channel();
  await Inbox.open(owner, queue, { exclusive: true, consumerTag: 'owner' });
  const second = await s.channel();
  assert.deepEqual(await channelError(second, () => Inbox.open(second, queue)), refused);
  await owner.cancel('owner');
  await Inbox.open(owner, queue);
  const third = await s.channel();
  assert.deepEqual(await channelError(third, () => Inbox.open(third, queue, { exclusive: true })), refused);
});

test('a request is answered through direct reply-to', async (t) => {
  const s = await session(t);
  const server = await s.channel(await s.connect());
  const requests = await s.queue(server, 'requests');
  await server.consume(requests, (request) => {
    const { replyTo, correlationId } = request.properties;
    server.publish('', replyTo, Buffer.from(`${replyTo.length > 30} ${body(request).toUpperCase()}`), { correlationId });
    server.ack(request);
  });

  const client = await s.channel();
  const replies = await Inbox.open(client, 'amq.rabbitmq.reply-to', { noAck: true });
  for (const word of ['one', 'two', 'three']) {
    client.sendToQueue(requests, Buffer.from(word), { replyTo: 'amq.rabbitmq.reply-to', correlationId: word });
  }
  for (const word of ['one', 'two', 'three']) {
    const answer = await replies.take();
    assert.equal(body(answer), `true ${word.toUpperCase()}`);
    assert.equal(answer.properties.correlationId, word);
    assert.equal(answer.fields.exchange, '');
    assert.equal(answer.fields.redelivered, false);
  }
});

test('many clients get their own answers only', async (t) => {
  const s = await session(t);
  const server = await s.channel();
  const requests = await s.queue(server, 'requests');
  await server.consume(requests, (request) => {
    server.publish('', request.properties.replyTo, request.content, { correlationId: request.properties.correlationId });
    server.ack(request);
  });
  const call = async (client) => {
    const channel = await s.channel();
    const replies = await Inbox.open(channel, 'amq.rabbitmq.reply-to', { noAck: true });
    for (const number of numbers(10)) {
      const correlationId = `${client}-${number}`;
      channel.sendToQueue(requests, Buffer.from(correlationId), { replyTo: 'amq.rabbitmq.reply-to', correlationId });
      assert.equal(body(await replies.take()), correlationId);
    }
  };
  await Promise.all(numbers(20).map(call));
});

test('direct reply-to wants a consumer first, without acknowledgements', async (t) => {
  const s = await session(t);
  const options = { replyTo: 'amq.rabbitmq.reply-to' };
  const publisher = await s.channel();
  assert.deepEqual(await channelError(publisher, () => publisher.publish('', 'any', Buffer.from('x'), options)), {
    code: 406,
    text: 'PRECONDITION_FAILED - fast reply consumer does not exist',
  });
  const acknowledging = await s.channel();
  assert.deepEqual(await channelError(acknowledging, () => Inbox.open(acknowledging, 'amq.rabbitmq.reply-to')), {
    code: 406,
    text: 'PRECONDITION_FAILED - reply consumer cannot acknowledge',
  });
  const twice = await s.channel();
  await Inbox.open(twice, 'amq.rabbitmq.reply-to', { noAck: true });
  assert.deepEqual(await channelError(twice, () => Inbox.open(twice, 'amq.rabbitmq.reply-to', { noAck: true })), {
    code: 406,
    text: 'PRECONDITION_FAILED - reply consumer already set',
  });
});

test('an auto-delete queue goes with its last consumer', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'auto', { autoDelete: true });
  await fill(channel, queue, ['x']);
  await channel.get(queue, { noAck: true });
  await Inbox.open(channel, queue, { consumerTag: 'one' });
  const other = await s.channel();
  await Inbox.open(other, queue);
  await channel.cancel('one');
  assert.equal((await channel.checkQueue(queue)).consumerCount, 1, 'neither basic.get nor the first cancel deleted it');
  await other.close();
  await eventually(() => isAbsent(s, queue), 'the queue is gone');
});

test('an exclusive queue goes with its connection', async (t) => {
  const s = await session(t);
  const owner = await s.connect();
  const channel = await owner.createChannel();
  const { queue } = await channel.assertQueue(s.name('own'), { exclusive: true, durable: false });
  await channel.close();
  assert.equal((await (await owner.createChannel()).checkQueue(queue)).queue, queue, 'it outlives the channel');
  await owner.close();
  assert.ok(await isAbsent(s, queue), 'it is gone before the connection is closed');
});

test('a queue expires when it is not used', async (t) => {
  const s = await session(t);
  const channel = await s.channel();
  const used = await s.queue(channel, 'used', { expires: 300 });
  await Inbox.open(channel, used);
  const unused = await s.queue(channel, 'unused', { expires: 300 });
  // Looking the queue up would count as use, so an exchange that goes with its last binding tells when it is gone.
  const exchange = await s.exchange(channel, 'tell', 'fanout', { autoDelete: true });
  await channel.bindQueue(unused, exchange, '');
  const start = Date.now();
  await eventually(async () => {
    const probe = await s.channel();
    const gone = await probe.checkExchange(exchange).then(() => false, () => true);
    if (!gone) await probe.close();
    return gone;
  }, 'the unused queue is gone');
  assert.ok(Date.now() - start >= 250, 'it does not go too early');
  assert.equal((await channel.checkQueue(used)).consumerCount, 1, 'a queue with a consumer stays');
});

/** Whether the queue does not exist. */
async function isAbsent(s, queue) {
  const probe = await s.channel();
  try {
    await probe.checkQueue(queue);
    await probe.close();
    return false;
  } catch (error) {
    assert.equal(error.code, 404);
    return true;
  }
}
