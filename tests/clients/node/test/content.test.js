import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { Inbox, body, confirmed, drain } from '../support/messages.js';
import { session } from '../support/session.js';

const typed = (type, value) => ({ '!': type, value });

/** What is sent under each header, and what must arrive (the client decodes every integer type to a number). */
const FIELDS = {
  void: [null, null],
  true: [true, true],
  false: [false, false],
  int8: [typed('int8', -128), -128],
  uint8: [typed('uint8', 255), 255],
  int16: [typed('int16', -32768), -32768],
  uint16: [typed('uint16', 65535), 65535],
  int32: [typed('int32', -2147483648), -2147483648],
  uint32: [typed('uint32', 4294967295), 4294967295],
  int64: [typed('int64', -9007199254740991), -9007199254740991],
  float: [typed('float', 1.5), 1.5],
  double: [3.141592653589793, 3.141592653589793],
  decimal: [typed('decimal', { places: 2, digits: 4294967295 }), typed('decimal', { places: 2, digits: 4294967295 })],
  timestamp: [typed('timestamp', 1700000000), typed('timestamp', 1700000000)],
  string: ['grüße 🐇', 'grüße 🐇'],
  empty: ['', ''],
  long: ['x'.repeat(5000), 'x'.repeat(5000)],
  binary: [Buffer.from([0, 255, 206, 10]), Buffer.from([0, 255, 206, 10])],
  array: [[1, 'two', [null, { three: 3 }]], [1, 'two', [null, { three: 3 }]]],
  noItems: [[], []],
  table: [{ inner: { innermost: [true] } }, { inner: { innermost: [true] } }],
  noFields: [{}, {}],
};

test('headers of every type arrive as they were sent', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'headers');
  const headers = Object.fromEntries(Object.entries(FIELDS).map(([key, [sent]]) => [key, sent]));
  const expected = Object.fromEntries(Object.entries(FIELDS).map(([key, [, received]]) => [key, received]));
  await confirmed(channel, '', queue, 'x', { headers });
  const [message] = await drain(channel, queue);
  assert.deepEqual(message.properties.headers, expected);
});

test('the types of headers survive dead-lettering', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const dead = await s.queue(channel, 'dead');
  const queue = await s.queue(channel, 'dying', { deadLetterExchange: '', deadLetterRoutingKey: dead });
  const headers = Object.fromEntries(Object.entries(FIELDS).map(([key, [sent]]) => [key, sent]));
  await confirmed(channel, '', queue, 'x', { headers });
  channel.reject(await channel.get(queue), false);
  const { properties } = await (await Inbox.open(channel, dead, { noAck: true })).take();
  for (const [key, [, received]] of Object.entries(FIELDS)) assert.deepEqual(properties.headers[key], received, key);
});

test('every property arrives as it was sent', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'properties');
  const properties = {
    contentType: 'text/plain',
    contentEncoding: 'utf-8',
    headers: { own: 'header' },
    deliveryMode: 2,
    priority: 7,
    correlationId: 'correlation',
    replyTo: 'reply',
    expiration: '60000',
    messageId: 'message',
    timestamp: 1700000000,
    type: 'kind',
    userId: 'guest',
    appId: 'application',
  };
  await confirmed(channel, '', queue, 'x', properties);
  await confirmed(channel, '', queue, 'bare');
  const [message, bare] = await drain(channel, queue);
  assert.deepEqual({ ...message.properties }, { ...properties, clusterId: undefined });
  const { headers, deliveryMode, ...absent } = bare.properties;
  assert.deepEqual(headers, {});
  assert.equal(deliveryMode, undefined);
  assert.ok(Object.values(absent).every((value) => value === undefined));
});

test('bodies of any size arrive unchanged', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'bodies');
  const payload = 131072 - 8;
  const sizes = [0, 1, 2047, 2048, payload - 1, payload, payload + 1, 2 * payload, 2 * payload + 1];
  const bodies = sizes.map((size) => randomBytes(size));
  const inbox = await Inbox.open(await s.channel(), queue, { noAck: true });
  for (const content of bodies) await confirmed(channel, '', queue, content);
  for (const content of bodies) assert.ok((await inbox.take()).content.equals(content), `${content.length} bytes`);
});

test('a body of 5 MiB arrives unchanged, also in small frames', async (t) => {
  const s = await session(t);
  const content = randomBytes(5 * 1024 * 1024);
  for (const query of ['', 'frameMax=8192']) {
    const connection = await s.connect(query);
    const channel = await s.confirmChannel(connection);
    const queue = await s.queue(channel, `large-${query}`);
    const inbox = await Inbox.open(await s.channel(connection), queue);
    assert.equal(await confirmed(channel, '', queue, content, { persistent: true }), null);
    const message = await inbox.take();
    assert.ok(message.content.equals(content));
    assert.equal(message.fields.redelivered, false);
  }
});

test('names and routing keys may be any UTF-8 text up to 255 bytes', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const suffix = 'schlüssel / with spaces 🐇';
  const queue = await s.queue(channel, suffix);
  const exchange = await s.exchange(channel, suffix, 'direct');
  const key = 'k'.repeat(255);
  await channel.bindQueue(queue, exchange, key);
  await confirmed(channel, exchange, key, 'x');
  const [message] = await drain(channel, queue);
  assert.equal(body(message), 'x');
  assert.equal(message.fields.routingKey, key);
  assert.equal(message.fields.exchange, exchange);
});
