// These tests stop and restart a broker, so they use one of their own.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import amqplib from 'amqplib';
import { Broker } from '../support/broker.js';
import { eventually, soon } from '../support/deadline.js';
import { Inbox, body, drainBodies, fill, numbers } from '../support/messages.js';
import { Session, foreignBroker, reply } from '../support/session.js';

/** Declares a test that gets a `place`, whose broker it may stop and start again. */
function restarting(title, action) {
  test(title, { skip: foreignBroker }, async () => {
    const place = new Place(await Broker.start());
    try {
      await action(place);
    } finally {
      await place.clear();
    }
  });
}

class Place {
  #recovering = [];

  constructor(broker) {
    this.broker = broker;
  }

  /** Starts the broker again with the data and on the port that it had. */
  async restart() {
    await this.broker.startAgain();
  }

  /** A connection that amqplib opens anew whenever it is lost. */
  async recoveringConnection(recovery = {}) {
    const connection = await amqplib.connect(this.broker.url, { recovery: { initialDelay: 50, maxDelay: 200, ...recovery } });
    connection.on('error', () => {});
    this.#recovering.push(connection);
    return connection;
  }

  async clear() {
    for (const connection of this.#recovering) await soon(connection.close(), 'a connection to close');
    await this.broker.remove();
  }
}

restarting('a stopping broker closes its connections and ends with exit code 0', async ({ broker }) => {
  const s = new Session(broker.url);
  const connections = await Promise.all(numbers(5).map(() => s.connect()));
  for (const connection of connections) {
    const channel = await s.channel(connection);
    const { queue } = await channel.assertQueue('', { exclusive: true });
    await Inbox.open(channel, queue);
  }
  const closes = connections.map((connection) => new Promise((resolve) => connection.once('close', resolve)));
  assert.equal(await broker.stop(), 0);
  for (const error of await soon(Promise.all(closes), 'every connection to be closed')) {
    const { code, text } = reply(error);
    assert.equal(code, 320);
    assert.match(text, /^CONNECTION_FORCED - /);
  }
});

restarting('after a restart a client reconnects, declares again and goes on', async (place) => {
  const work = async () => {
    const s = new Session(place.broker.url);
    s.connection = await s.connect();
    const channel = await s.confirmChannel();
    await channel.assertExchange('orders', 'topic');
    await channel.assertQueue('orders');
    await channel.bindQueue('orders', 'orders', 'order.#');
    return { s, channel, inbox: await Inbox.open(channel, 'orders', { noAck: true }) };
  };
  const publish = async ({ channel }, content) => {
    channel.publish('orders', 'order.new', Buffer.from(content), { persistent: true });
    await soon(channel.waitForConfirms(), 'a confirm');
  };

  const before = await work();
  await publish(before, 'before');
  assert.equal(body(await before.inbox.take()), 'before');
  const closed = new Promise((resolve) => before.s.connection.once('close', resolve));
  const channelClosed = new Promise((resolve) => before.channel.once('close', resolve));
  assert.equal(await place.broker.stop(), 0);
  assert.equal(reply(await soon(closed, 'the close event')).code, 320);
  await soon(channelClosed, 'the close event of the channel');
  await assert.rejects(before.s.connect(), { code: 'ECONNREFUSED' });

  await place.restart();
  const after = await work();
  await publish(after, 'after');
  assert.equal(body(await after.inbox.take()), 'after');
  await after.s.end();
});

for (const ending of ['stop', 'kill']) {
  restarting(`what is durable survives a restart: ${ending}`, async (place) => {
    const connect = async () => {
      const s = new Session(place.broker.url);
      s.connection = await s.connect();
      return { s, channel: await s.confirmChannel() };
    };
    const before = await connect();
    before.s.connection.on('error', () => {});
    before.channel.on('error', () => {});
    await before.channel.assertExchange('kept', 'direct');
    await before.channel.assertQueue('kept');
    await before.channel.bindQueue('kept', 'kept', 'key');
    await before.channel.assertQueue('transient', { durable: false });
    before.channel.publish('kept', 'key', Buffer.from('persistent'), { persistent: true });
    before.channel.publish('kept', 'key', Buffer.from('transient'), { persistent: false });
    await soon(before.channel.waitForConfirms(), 'confirms');
    const closed = new Promise((resolve) => before.s.connection.once('close', resolve));
    await place.broker[ending]();
    await soon(closed, 'the close event');

    await place.restart();
    const { s, channel } = await connect();
    channel.publish('kept', 'key', Buffer.from('routed again'), { persistent: true });
    await soon(channel.waitForConfirms(), 'a confirm');
    assert.deepEqual(await drainBodies(channel, 'kept'), ['persistent', 'routed again']);
    channel.on('error', () => {});
    await assert.rejects(channel.checkQueue('transient'), /404 .*NOT[_-]FOUND - no queue 'transient' in vhost '\/'/);
    await s.end();
  });
}

restarting("amqplib's own recovery finds the restarted broker", async (place) => {
  const events = [];
  const received = [];
  const setup = async (connection) => {
    const channel = await connection.createChannel();
    await channel.assertQueue('recovered');
    await channel.consume('recovered', (message) => received.push(body(message)), { noAck: true });
  };
  const connection = await place.recoveringConnection({ setup });
  for (const event of ['connect', 'disconnect']) connection.on(event, () => events.push(event));
  await fill(await connection.createConfirmChannel(), 'recovered', ['1']);
  await eventually(() => received.includes('1'), 'the first message arrived');

  assert.equal(await place.broker.stop(), 0);
  await eventually(() => events.includes('disconnect'), 'the client noticed');
  await place.restart();
  await fill(await soon(connection.createConfirmChannel(), 'the connection to recover'), 'recovered', ['2']);
  await eventually(() => received.includes('2'), 'the second message arrived');
  assert.deepEqual(events, ['disconnect', 'connect']);
});

restarting('a client survives a broker that is killed', async (place) => {
  const connection = await place.recoveringConnection();
  const disconnected = new Promise((resolve) => connection.once('disconnect', resolve));
  const exclusive = await connection.createChannel();
  await exclusive.assertQueue('mine', { exclusive: true, durable: false });
  await place.broker.kill();
  await soon(disconnected, 'the client to notice');

  await place.restart();
  const channel = await soon(connection.createConfirmChannel(), 'the connection to recover');
  await channel.assertQueue('mine', { exclusive: true, durable: false });
  await fill(channel, 'mine', numbers(3));
  assert.deepEqual(await drainBodies(channel, 'mine'), numbers(3));
});

restarting('unconfirmed publishing fails when the broker goes away', async (place) => {
  const s = new Session(place.broker.url);
  const channel = await s.confirmChannel(await s.connect());
  await channel.assertQueue('busy', { exclusive: true, durable: false });
  const outcomes = [];
  const failed = publishUntilClosed(channel, 'busy', outcomes);
  await eventually(() => outcomes.length > 100, 'publishing is under way');
  assert.equal(await place.broker.stop(), 0);
  assert.match((await soon(failed, 'publishing to fail')).message, /clos/i);

  const refusals = await soon(Promise.all(outcomes), 'every publish to be confirmed or to fail');
  const firstFailure = refusals.findIndex((refusal) => refusal !== null);
  const confirmedLater = firstFailure < 0 ? [] : refusals.slice(firstFailure).filter((refusal) => refusal === null);
  assert.deepEqual(confirmedLater, [], 'confirms come for the first part of what was published');
});

/** Publishes until the channel refuses; resolves with that error. */
async function publishUntilClosed(channel, queue, outcomes) {
  for (;;) {
    let settle;
    const outcome = new Promise((resolve) => (settle = resolve));
    try {
      channel.sendToQueue(queue, Buffer.alloc(1000), {}, settle);
    } catch (error) {
      return error;
    }
    outcomes.push(outcome);
    await new Promise(setImmediate);
  }
}
