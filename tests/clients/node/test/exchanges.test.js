import assert from 'node:assert/strict';
import { test } from 'node:test';
import { confirmed, drain, drainBodies } from '../support/messages.js';
import { channelError, session } from '../support/session.js';

test('a fanout exchange copies each message to every bound queue', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const exchange = await s.exchange(channel, 'news', 'fanout');
  const queues = [];
  for (const suffix of ['a', 'b', 'c']) queues.push(await s.queue(channel, suffix));
  for (const queue of queues) await channel.bindQueue(queue, exchange, 'ignored');
  await channel.bindQueue(queues[0], exchange, 'bound twice');
  await confirmed(channel, exchange, '', 'one');
  await confirmed(channel, exchange, 'any', 'two');
  for (const queue of queues) assert.deepEqual(await drainBodies(channel, queue), ['one', 'two']);
});

test('subscribers with their own server-named queues all get a published message', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const exchange = await s.exchange(channel, 'pubsub', 'fanout');
  const queues = [];
  for (let subscriber = 0; subscriber < 3; subscriber++) {
    const { queue } = await channel.assertQueue('', { exclusive: true });
    assert.match(queue, /^amq\.gen-[A-Za-z0-9_-]{22}$/);
    await channel.bindQueue(queue, exchange, '');
    queues.push(queue);
  }
  assert.equal(new Set(queues).size, 3);
  await confirmed(channel, exchange, '', 'hello');
  for (const queue of queues) assert.deepEqual(await drainBodies(channel, queue), ['hello']);
});

test('a direct exchange compares routing keys exactly', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const exchange = await s.exchange(channel, 'logs', 'direct');
  const [errors, all] = [await s.queue(channel, 'errors'), await s.queue(channel, 'all')];
  await channel.bindQueue(errors, exchange, 'error');
  for (const key of ['error', 'info', '#']) await channel.bindQueue(all, exchange, key);
  for (const key of ['error', 'info', 'Error', 'debug', '#', '']) await confirmed(channel, exchange, key, key);
  assert.deepEqual(await drainBodies(channel, errors), ['error']);
  assert.deepEqual(await drainBodies(channel, all), ['error', 'info', '#']);

  await channel.unbindQueue(all, exchange, 'info');
  await channel.unbindQueue(all, exchange, 'never bound');
  for (const key of ['error', 'info']) await confirmed(channel, exchange, key, key);
  assert.deepEqual(await drainBodies(channel, all), ['error']);
});

test('topic patterns match words', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const exchange = await s.exchange(channel, 'topics', 'topic');
  const keys = ['', 'a', 'a.b', 'a.b.c', 'b.a', 'a..c', 'a.', 'x.a.y', 'lazy.orange.rabbit', 'quick.orange.fox', '*'];
  const matches = {
    '#': keys,
    '*': ['a', '*'],
    'a.*': ['a.b', 'a.'],
    'a.#': ['a', 'a.b', 'a.b.c', 'a..c', 'a.'],
    '*.#': keys.filter((key) => key !== ''),
    '#.a': ['a', 'b.a'],
    '#.a.#': ['a', 'a.b', 'a.b.c', 'b.a', 'a..c', 'a.', 'x.a.y'],
    'a.*.c': ['a.b.c', 'a..c'],
    '*.orange.*': ['lazy.orange.rabbit', 'quick.orange.fox'],
    'lazy.#': ['lazy.orange.rabbit'],
    'a*': [],
    '': [''],
  };
  const queues = new Map();
  for (const pattern of Object.keys(matches)) {
    const queue = await s.queue(channel, `topic-${queues.size}`);
    await channel.bindQueue(queue, exchange, pattern);
    queues.set(pattern, queue);
  }
  for (const key of keys) await confirmed(channel, exchange, key, `key ${key}`);
  for (const [pattern, queue] of queues) {
    const expected = matches[pattern].map((key) => `key ${key}`);
    assert.deepEqual((await drainBodies(channel, queue)).sort(), expected.sort(), `pattern '${pattern}'`);
  }
});

test('a topic queue bound by several matching patterns gets one copy', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'once');
  for (const pattern of ['#', 'a.*', '*.b']) await channel.bindQueue(queue, 'amq.topic', `${queue}.${pattern}`);
  await confirmed(channel, 'amq.topic', `${queue}.a.b`, 'x');
  assert.deepEqual(await drainBodies(channel, queue), ['x']);
});

test('headers exchanges match by all four modes', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const exchange = await s.exchange(channel, 'headers', 'headers');
  const messages = {
    both: { format: 'pdf', pages: 2, 'x-origin': 'scan' },
    format: { format: 'pdf', pages: 9 },
    origin: { 'x-origin': 'scan' },
    text: { format: 'pdf', pages: '2' },
    none: {},
  };
  const wanted = { format: 'pdf', pages: 2, 'x-origin': 'other' };
  const bindings = {
    all: [{ 'x-match': 'all', ...wanted }, ['both']],
    default: [{ ...wanted }, ['both']],
    any: [{ 'x-match': 'any', ...wanted }, ['both', 'format', 'text']],
    allWithX: [{ 'x-match': 'all-with-x', format: 'pdf', 'x-origin': 'scan' }, ['both']],
    anyWithX: [{ 'x-match': 'any-with-x', pages: 2, 'x-origin': 'scan' }, ['both', 'origin']],
    present: [{ 'x-match': 'all', pages: null }, ['both', 'format', 'text']],
    allOfNothing: [{ 'x-match': 'all' }, Object.keys(messages)],
    anyOfNothing: [{ 'x-match': 'any' }, []],
  };
  const queues = new Map();
  for (const [suffix, [args]] of Object.entries(bindings)) {
    const queue = await s.queue(channel, suffix);
    await channel.bindQueue(queue, exchange, '', args);
    queues.set(suffix, queue);
  }
  for (const [content, headers] of Object.entries(messages)) await confirmed(channel, exchange, '', content, { headers });
  for (const [suffix, queue] of queues) {
    assert.deepEqual(await drainBodies(channel, queue), bindings[suffix][1], `binding '${suffix}'`);
  }
});

test('an unknown x-match value is refused', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'xmatch');
  const error = await channelError(channel, () => channel.bindQueue(queue, 'amq.headers', '', { 'x-match': 'some' }));
  assert.equal(error.code, 406);
  assert.match(error.text, /^PRECONDITION_FAILED - Invalid x-match field value .*some.*; expected all, any, all-with-x, or any-with-x$/);
});

test('exchanges can be bound to exchanges, even in a circle', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const source = await s.exchange(channel, 'source', 'topic');
  const middle = await s.exchange(channel, 'middle', 'fanout');
  const queue = await s.queue(channel, 'end');
  await channel.bindExchange(middle, source, 'to.#');
  await channel.bindExchange(source, middle, '');
  await channel.bindQueue(queue, middle, '');
  await channel.bindQueue(queue, source, 'to.queue');
  for (const key of ['to.queue', 'to.other', 'from']) await confirmed(channel, source, key, key);
  assert.deepEqual(await drainBodies(channel, queue), ['to.queue', 'to.other']);

  await channel.unbindExchange(middle, source, 'to.#');
  for (const key of ['to.queue', 'to.other']) await confirmed(channel, source, key, key);
  assert.deepEqual(await drainBodies(channel, queue), ['to.queue']);
});

test('an alternate exchange gets what its exchange cannot route', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const alternate = await s.exchange(channel, 'alternate', 'fanout');
  const exchange = await s.exchange(channel, 'main', 'direct', { alternateExchange: alternate });
  const [known, unknown] = [await s.queue(channel, 'known'), await s.queue(channel, 'unknown')];
  await channel.bindQueue(known, exchange, 'known');
  await channel.bindQueue(unknown, alternate, '');
  const returned = [];
  channel.on('return', (message) => returned.push(message));
  for (const key of ['known', 'other']) assert.equal(await confirmed(channel, exchange, key, key, { mandatory: true }), null);
  assert.deepEqual(await drainBodies(channel, known), ['known']);
  const [message] = await drain(channel, unknown);
  assert.equal(message.fields.exchange, exchange);
  assert.equal(message.fields.routingKey, 'other');
  assert.equal(returned.length, 0, 'the alternate exchange routed it');

  await channel.deleteExchange(alternate);
  assert.equal(await confirmed(channel, exchange, 'other', 'lost', { mandatory: true }), null);
  assert.equal(returned.length, 1, 'an alternate exchange that is gone routes nothing');
});

test('an auto-delete exchange goes with its last binding', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const exchange = await s.exchange(channel, 'auto', 'fanout', { autoDelete: true });
  const [one, two] = [await s.queue(channel, 'one'), await s.queue(channel, 'two')];
  await channel.bindQueue(one, exchange, '');
  await channel.bindQueue(two, exchange, '');
  await channel.unbindQueue(one, exchange, '');
  await channel.checkExchange(exchange);
  await channel.deleteQueue(two);
  const probe = await s.channel();
  const error = await channelError(probe, () => probe.checkExchange(exchange));
  assert.deepEqual(error, { code: 404, text: `NOT_FOUND - no exchange '${exchange}' in vhost '/'` });
});

test('CC and BCC route to further keys, and BCC is removed', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queues = [];
  for (const suffix of ['to', 'cc', 'bcc']) queues.push(await s.queue(channel, suffix));
  const [to, cc, bcc] = queues;
  await confirmed(channel, '', to, 'x', { CC: [cc, to], BCC: [bcc] });
  for (const queue of queues) {
    const messages = await drain(channel, queue);
    assert.equal(messages.length, 1);
    assert.deepEqual(messages[0].properties.headers, { CC: [cc, to] });
    assert.equal(messages[0].fields.routingKey, to);
  }
});

test('the predeclared exchanges exist and route', async (t) => {
  const s = await session(t);
  const channel = await s.confirmChannel();
  const queue = await s.queue(channel, 'predeclared');
  const types = { 'amq.direct': 'direct', 'amq.topic': 'topic', 'amq.fanout': 'fanout', 'amq.headers': 'headers', 'amq.match': 'headers' };
  for (const [exchange, type] of Object.entries(types)) {
    await channel.assertExchange(exchange, type, { durable: true });
    await channel.bindQueue(queue, exchange, queue, { own: queue });
    await confirmed(channel, exchange, queue, exchange, { headers: { own: queue } });
    await channel.unbindQueue(queue, exchange, queue, { own: queue });
    assert.deepEqual(await drainBodies(channel, queue), [exchange]);
  }
});
