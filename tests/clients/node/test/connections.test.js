import assert from 'node:assert/strict';
import { test } from 'node:test';
import { delay, soon } from '../support/deadline.js';
import { Inbox, body, drainBodies, fill, numbers } from '../support/messages.js';
import { foreignBroker, session } from '../support/session.js';

test('the broker names its product and capabilities', async (t) => {
  const s = await session(t);
  const { serverProperties } = s.connection.connection;
  for (const key of ['product', 'version', 'platform', 'copyright', 'information', 'cluster_name']) {
    assert.equal(typeof serverProperties[key], 'string', key);
  }
  assert.match(serverProperties.version, /^\d+\.\d+\.\d+/);
  const names = ['publisher_confirms', 'exchange_exchange_bindings', 'basic.nack', 'consumer_cancel_notify', 'connection.blocked',
    'consumer_priorities', 'authentication_failure_close', 'per_consumer_qos', 'direct_reply_to'];
  for (const name of names) assert.equal(serverProperties.capabilities[name], true, name);
});

test('the lower of both limits is agreed on', async (t) => {
  const s = await session(t);
  const { connection: standard } = s.connection;
  assert.deepEqual([standard.frameMax, standard.channelMax, standard.heartbeat], [131072, 2047, 60]);
  const { connection: lower } = await s.connect('frameMax=8192&channelMax=10&heartbeat=5');
  assert.deepEqual([lower.frameMax, lower.channelMax, lower.heartbeat], [8192, 10, 5]);
});

test('heartbeats keep an idle connection alive', async (t) => {
  const s = await session(t);
  const connection = await s.connect('heartbeat=1');
  const channel = await s.channel(connection);
  let failure;
  connection.on('close', (error) => (failure = error ?? new Error('closed')));
  // Either side gives up after three silent intervals at the latest.
  await delay(4500);
  assert.equal(failure, undefined);
  await channel.checkExchange('amq.direct');
});

test('a client that falls silent is disconnected and its messages are requeued', async (t) => {
  const s = await session(t);
  const publisher = await s.confirmChannel();
  const queue = await s.queue(publisher, 'silent');
  await fill(publisher, queue, ['x']);
  const connection = await s.connect('heartbeat=1');
  await (await Inbox.open(await s.channel(connection), queue)).take();
  const closed = new Promise((resolve) => connection.once('close', resolve));
  connection.connection.heartbeater.clear();
  await soon(closed, 'the broker to give up on the client');
  const again = await (await Inbox.open(publisher, queue)).take();
  assert.equal(body(again), 'x');
  assert.equal(again.fields.redelivered, true);
});

test('200 channels work side by side on one connection', async (t) => {
  const s = await session(t);
  const channels = await Promise.all(numbers(200).map(() => s.confirmChannel()));
  assert.equal(new Set(channels.map((channel) => channel.ch)).size, 200);
  await Promise.all(channels.map(async (channel, index) => {
    const { queue } = await channel.assertQueue('', { exclusive: true });
    await fill(channel, queue, [`${index}`, 'end']);
    assert.deepEqual(await drainBodies(channel, queue), [`${index}`, 'end']);
    await channel.deleteQueue(queue);
  }));
  await Promise.all(channels.map((channel) => channel.close()));
});

test('channels can be opened and closed again and again', async (t) => {
  const s = await session(t);
  for (let count = 0; count < 200; count++) {
    const channel = await s.connection.createChannel();
    assert.equal(channel.ch, 1);
    await channel.close();
  }
});

test('connections can be opened and closed in numbers', async (t) => {
  const s = await session(t);
  const connections = await Promise.all(numbers(50).map((number) => s.connect('', { clientProperties: { connection_name: number } })));
  await Promise.all(connections.map(async (connection) => (await connection.createChannel()).checkExchange('amq.fanout')));
  await Promise.all(connections.map((connection) => connection.close()));
});

test('an abrupt loss of the connection requeues and cleans up', async (t) => {
  const s = await session(t);
  const publisher = await s.confirmChannel();
  const queue = await s.queue(publisher, 'lost');
  await fill(publisher, queue, numbers(3));
  const connection = await s.connect();
  const channel = await s.channel(connection);
  await (await Inbox.open(channel, queue)).takeMany(3);
  connection.connection.stream.destroy(new Error('cut off by the test'));
  const again = await (await Inbox.open(publisher, queue)).takeMany(3);
  assert.deepEqual(again.map(body), numbers(3));
  assert.ok(again.every((message) => message.fields.redelivered));
});

test('a transient queue need not be exclusive', { skip: foreignBroker }, async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'transient', { durable: false });
  await fill(channel, queue, ['x']);
  assert.deepEqual(await drainBodies(await s.channel(await s.connect()), queue), ['x']);
});
