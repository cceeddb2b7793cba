import assert from 'node:assert/strict';
import { test } from 'node:test';
import { soon } from '../support/deadline.js';
import { Inbox, confirmed, drainBodies, fill } from '../support/messages.js';
import { brokerUrl, channelError, connectTo, connectionError, reply, session } from '../support/session.js';

/** Declares a test that `action(channel, s)` makes the broker close the channel with that code and text. */
function refuses(title, action, code, text) {
  test(title, async (t) => {
    const s = await session(t);
    const channel = await s.channel();
    const error = await channelError(channel, () => action(channel, s));
    const expected = typeof text === 'function' ? text(s) : text;
    assert.deepEqual(error, { code, text: expected });
    await (await s.channel()).assertExchange('amq.direct', 'direct');
  });
}

const noQueue = (s) => `NOT_FOUND - no queue '${s.name('absent')}' in vhost '/'`;
const noExchange = (s) => `NOT_FOUND - no exchange '${s.name('absent')}' in vhost '/'`;

refuses('404 for looking up an absent queue', (ch, s) => ch.checkQueue(s.name('absent')), 404, noQueue);
refuses('404 for consuming from an absent queue', (ch, s) => Inbox.open(ch, s.name('absent')), 404, noQueue);
refuses('404 for getting from an absent queue', (ch, s) => ch.get(s.name('absent')), 404, noQueue);
refuses('404 for purging an absent queue', (ch, s) => ch.purgeQueue(s.name('absent')), 404, noQueue);
refuses('404 for binding an absent queue', (ch, s) => ch.bindQueue(s.name('absent'), 'amq.direct', ''), 404, noQueue);
refuses('404 for looking up an absent exchange', (ch, s) => ch.checkExchange(s.name('absent')), 404, noExchange);
refuses('404 for publishing to an absent exchange', (ch, s) => ch.publish(s.name('absent'), '', Buffer.from('x')), 404, noExchange);
refuses('404 for binding to an absent exchange', (ch, s) => ch.bindExchange('amq.fanout', s.name('absent'), ''), 404, noExchange);

refuses('403 for declaring a queue with a reserved name', (ch) => ch.assertQueue('amq.mine', { exclusive: true }), 403,
  "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'");
refuses('403 for declaring an exchange with a reserved name', (ch) => ch.assertExchange('amq.mine', 'direct'), 403,
  "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'");
refuses('403 for deleting a predeclared exchange', (ch) => ch.deleteExchange('amq.direct'), 403,
  "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed");
refuses('403 for deleting the default exchange', (ch) => ch.deleteExchange(''), 403,
  'ACCESS_REFUSED - operation not permitted on the default exchange');
refuses('403 for binding to the default exchange', async (ch, s) => ch.bindQueue(await s.queue(ch, 'bound'), '', 'key'), 403,
  'ACCESS_REFUSED - operation not permitted on the default exchange');
refuses('403 for publishing to an internal exchange', async (ch, s) => {
  const exchange = await s.exchange(ch, 'internal', 'fanout', { internal: true });
  ch.publish(exchange, '', Buffer.from('x'));
}, 403, (s) => `ACCESS_REFUSED - cannot publish to internal exchange '${s.name('internal')}' in vhost '/'`);

/** Declares a test that redeclaring a queue first declared with `before` with `after` is refused with that detail. */
function inequivalent(what, before, after, detail) {
  refuses(`406 for redeclaring a queue with ${what}`, async (ch, s) => {
    await ch.assertQueue(await s.queue(ch, 'q', before), after);
  }, 406, (s) => `PRECONDITION_FAILED - inequivalent arg ${detail(s.name('q'))}`);
}

inequivalent('another durability', { durable: true }, { durable: false, exclusive: false },
  (q) => `'durable' for queue '${q}' in vhost '/': received 'false' but current is 'true'`);
inequivalent('another auto-delete', {}, { autoDelete: true },
  (q) => `'auto_delete' for queue '${q}' in vhost '/': received 'true' but current is 'false'`);
inequivalent('another length limit', { maxLength: 10 }, { maxLength: 20 },
  (q) => `'x-max-length' for queue '${q}' in vhost '/': received '20' but current is '10'`);
inequivalent('a length limit it had not', {}, { arguments: { 'x-max-length': { '!': 'int', value: 10 } } },
  (q) => `'x-max-length' for queue '${q}' in vhost '/': received the value '10' of type 'signedint' but current is none`);
inequivalent('no longer a TTL', { arguments: { 'x-message-ttl': { '!': 'long', value: 60000 } } }, {},
  (q) => `'x-message-ttl' for queue '${q}' in vhost '/': received none but current is the value '60000' of type 'long'`);
inequivalent('a dead-letter exchange it had not', {}, { deadLetterExchange: 'dead' },
  (q) => `'x-dead-letter-exchange' for queue '${q}' in vhost '/': received the value 'dead' of type 'longstr' but current is none`);

test('redeclaring a queue with equivalent arguments succeeds', async (t) => {
  const s = await session(t);
  const channel = await s.channel();
  const queue = await s.queue(channel, 'q', { arguments: { 'x-max-length': { '!': 'short', value: 10 }, 'x-mine': 1 } });
  await channel.assertQueue(queue, { arguments: { 'x-max-length': { '!': 'long', value: 10 }, 'x-queue-type': 'classic' } });
});

refuses('406 for redeclaring an exchange with another type', async (ch, s) => {
  await ch.assertExchange(await s.exchange(ch, 'x', 'topic'), 'fanout');
}, 406, (s) => `PRECONDITION_FAILED - inequivalent arg 'type' for exchange '${s.name('x')}' in vhost '/': received 'fanout' but current is 'topic'`);
refuses('406 for redeclaring an exchange with another alternate', async (ch, s) => {
  await ch.assertExchange(await s.exchange(ch, 'x', 'topic', { alternateExchange: 'one' }), 'topic', { alternateExchange: 'two' });
}, 406, (s) => `PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange '${s.name('x')}' in vhost '/': received 'two' but current is 'one'`);
test('406 for an unknown exchange type', async (t) => {
  const s = await session(t);
  const channel = await s.channel();
  const error = await channelError(channel, () => channel.assertExchange(s.name('x'), 'no-such-type'));
  assert.equal(error.code, 406);
  assert.match(error.text, /^PRECONDITION_FAILED - (unknown|invalid) exchange type 'no-such-type'$/);
});

test('406 for arguments that are not valid', async (t) => {
  const s = await session(t);
  const invalid = {
    'x-message-ttl': -1,
    'x-expires': 0,
    'x-max-length': 'ten',
    'x-max-priority': 256,
    'x-overflow': 'sometimes',
    'x-dead-letter-routing-key': 'key',
    'x-single-active-consumer': 'yes',
  };
  for (const [argument, value] of Object.entries(invalid)) {
    const channel = await s.channel();
    const error = await channelError(channel, () => channel.assertQueue(s.name('q'), { arguments: { [argument]: value } }));
    assert.equal(error.code, 406);
    const beginning = `PRECONDITION_FAILED - invalid arg '${argument}' for queue '${s.name('q')}' in vhost '/'`;
    assert.ok(error.text.startsWith(beginning), error.text);
  }
});

refuses('406 for an unknown delivery tag', (ch) => ch.ack({ fields: { deliveryTag: 42 } }), 406,
  'PRECONDITION_FAILED - unknown delivery tag 42');
refuses('406 for acknowledging twice', async (ch, s) => {
  const queue = await s.queue(ch, 'twice');
  await fill(await s.confirmChannel(), queue, ['x']);
  const message = await ch.get(queue);
  ch.ack(message);
  ch.ack(message);
}, 406, 'PRECONDITION_FAILED - unknown delivery tag 1');
refuses('406 for acknowledging what needs no acknowledgement', async (ch, s) => {
  const queue = await s.queue(ch, 'noack');
  await fill(await s.confirmChannel(), queue, ['x']);
  ch.nack(await ch.get(queue, { noAck: true }));
}, 406, 'PRECONDITION_FAILED - unknown delivery tag 1');
refuses('406 for deleting a queue in use', async (ch, s) => {
  const queue = await s.queue(ch, 'used');
  await Inbox.open(await s.channel(), queue);
  await ch.deleteQueue(queue, { ifUnused: true });
}, 406, (s) => `PRECONDITION_FAILED - queue '${s.name('used')}' in vhost '/' in use`);
refuses('406 for deleting a queue that is not empty', async (ch, s) => {
  const queue = await s.queue(ch, 'full');
  await fill(await s.confirmChannel(), queue, ['x']);
  await ch.deleteQueue(queue, { ifEmpty: true });
}, 406, (s) => `PRECONDITION_FAILED - queue '${s.name('full')}' in vhost '/' not empty`);
refuses('406 for deleting an exchange in use', async (ch, s) => {
  const exchange = await s.exchange(ch, 'used', 'fanout');
  await ch.bindQueue(await s.queue(ch, 'q'), exchange, '');
  await ch.deleteExchange(exchange, { ifUnused: true });
}, 406, (s) => `PRECONDITION_FAILED - exchange '${s.name('used')}' in vhost '/' in use`);
refuses('406 for a user id that is not the own', (ch) => ch.publish('', 'any', Buffer.from('x'), { userId: 'somebody' }), 406,
  "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'");
refuses('406 for a message over the size limit', (ch) => ch.publish('', 'any', Buffer.alloc(16 * 1024 * 1024 + 1)), 406,
  'PRECONDITION_FAILED - message size 16777217 is larger than configured max size 16777216');

test('406 for an expiration that is not a number', async (t) => {
  const s = await session(t);
  for (const expiration of ['soon', '-1', '1.5', '']) {
    const channel = await s.channel();
    const error = await channelError(channel, () => channel.publish('', 'any', Buffer.from('x'), { expiration }));
    assert.equal(error.code, 406);
    assert.ok(error.text.startsWith(`PRECONDITION_FAILED - invalid expiration '${expiration}'`), error.text);
  }
});

test('405 for the exclusive queue of another connection', async (t) => {
  const s = await session(t);
  const owner = await s.channel();
  const { queue } = await owner.assertQueue(s.name('locked'), { exclusive: true, durable: false });
  const text = `RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '${queue}' in vhost '/'. It could be originally declared `
    + 'on another connection or the exclusive property value does not match that of the original declaration.';
  const other = await s.connect();
  const attempts = [
    (channel) => channel.assertQueue(queue, { exclusive: true, durable: false }),
    (channel) => channel.checkQueue(queue),
    (channel) => Inbox.open(channel, queue),
    (channel) => channel.get(queue),
    (channel) => channel.purgeQueue(queue),
    (channel) => channel.bindQueue(queue, 'amq.direct', 'key'),
    (channel) => channel.deleteQueue(queue),
  ];
  for (const attempt of attempts) {
    const channel = await s.channel(other);
    assert.deepEqual(await channelError(channel, () => attempt(channel)), { code: 405, text });
  }
  const publisher = await s.confirmChannel(other);
  assert.equal(await confirmed(publisher, '', queue, 'x'), null, 'anybody may publish to it');
  const second = await s.channel();
  assert.deepEqual(await drainBodies(second, queue), ['x'], 'another channel of the owner may use it');
});

test('530 for an active consumer tag closes the connection', async (t) => {
  const s = await session(t);
  const connection = await s.connect();
  const channel = await s.channel(connection);
  const queue = await s.queue(channel, 'tags');
  await Inbox.open(channel, queue, { consumerTag: 'tag' });
  const error = await connectionError(connection, () => Inbox.open(channel, queue, { consumerTag: 'tag' }));
  assert.deepEqual(error, { code: 530, text: "NOT_ALLOWED - attempt to reuse consumer tag 'tag'" });
});

test('a virtual host that does not exist is refused', async () => {
  const url = new URL(brokerUrl);
  url.pathname = '/no-such-vhost';
  const error = await connectTo(url.href).catch((refusal) => refusal);
  // The client does not tell the reply code and text of a refused virtual host.
  assert.equal(error.message, 'Expected ConnectionOpenOk; got <ConnectionClose channel:0>');
});

test('403 for a wrong password', async () => {
  const url = new URL(brokerUrl);
  for (const [user, password] of [['guest', 'wrong'], ['nobody', 'guest']]) {
    url.username = user;
    url.password = password;
    const error = await soon(connectTo(url.href).catch((refusal) => refusal), 'the refusal');
    const { code, text } = reply(error);
    assert.equal(code, 403);
    assert.equal(text, 'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.');
  }
});

test('an error on one channel leaves the others and its number usable', async (t) => {
  const s = await session(t);
  const channels = [];
  for (let count = 0; count < 5; count++) channels.push(await s.channel());
  await channelError(channels[2], () => channels[2].checkQueue(s.name('absent')));
  const reopened = await s.channel();
  assert.equal(reopened.ch, channels[2].ch);
  for (const channel of [channels[0], channels[4], reopened]) await channel.checkExchange('amq.topic');
});

test('messages published after the failing one are dropped', async (t) => {
  const s = await session(t);
  const setup = await s.confirmChannel();
  const queue = await s.queue(setup, 'after');
  const channel = await s.channel();
  const error = await channelError(channel, () => {
    channel.sendToQueue(queue, Buffer.from('before'));
    channel.publish(s.name('absent'), '', Buffer.from('failing'));
    channel.sendToQueue(queue, Buffer.from('after'));
  });
  assert.equal(error.code, 404);
  await fill(setup, queue, ['end']);
  assert.deepEqual(await drainBodies(setup, queue), ['before', 'end']);
});
