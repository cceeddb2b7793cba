// What a test needs of a broker: connections that are closed, and queues and exchanges that are deleted, when it ends.

import { randomBytes } from 'node:crypto';
import amqplib from 'amqplib';
import { SOON_MS, soon } from './deadline.js';

/** The broker all test files share; the suite sets it. */
export const brokerUrl = process.env.BROKER_URL;

/** True when the tests run against a broker that is not Warren. */
export const foreignBroker = Boolean(process.env.AMQP_URL);

/** Opens a session on the shared broker that ends with the test `t`. */
export async function session(t, url = brokerUrl) {
  const opened = new Session(url);
  t.after(() => opened.end());
  opened.connection = await opened.connect();
  return opened;
}

export class Session {
  #url;
  #prefix = `node-${randomBytes(6).toString('hex')}`;
  #connections = new Set();
  #queues = [];
  #exchanges = [];

  constructor(url) {
    this.#url = url;
  }

  /** A further connection. `query` is appended to the URL, e.g. `heartbeat=1`. */
  async connect(query = '', options = {}) {
    const connection = await connectTo(`${this.#url}?${query}`, options);
    this.#connections.add(connection);
    return connection;
  }

  async channel(connection = this.connection) {
    return quiet(await connection.createChannel());
  }

  async confirmChannel(connection = this.connection) {
    return quiet(await connection.createConfirmChannel());
  }

  /** A name no other test uses. */
  name(suffix) {
    return `${this.#prefix}-${suffix}`;
  }

  /** Declares a durable queue with that suffix, deleted when the session ends; returns its name. */
  async queue(channel, suffix, options = {}) {
    const queue = this.name(suffix);
    this.#queues.push(queue);
    await channel.assertQueue(queue, options);
    return queue;
  }

  /** Declares an exchange with that suffix, deleted when the session ends; returns its name. */
  async exchange(channel, suffix, type, options = {}) {
    const exchange = this.name(suffix);
    this.#exchanges.push(exchange);
    await channel.assertExchange(exchange, type, options);
    return exchange;
  }

  async end() {
    for (const connection of this.#connections) await soon(connection.close(), 'a connection to close').catch(() => {});
    if (this.#queues.length + this.#exchanges.length === 0) return;
    const connection = await connectTo(this.#url);
    const channel = await connection.createChannel();
    for (const queue of this.#queues) await channel.deleteQueue(queue);
    for (const exchange of this.#exchanges) await channel.deleteExchange(exchange);
    await connection.close();
  }
}

export async function connectTo(url, options = {}) {
  const connection = quiet(await soon(amqplib.connect(url, { noDelay: true, timeout: SOON_MS, ...options }), 'connecting'));
  connection.setMaxListeners(0);
  return connection;
}

/** Tests look for errors themselves; without a listener one would end the process. */
function quiet(emitter) {
  emitter.on('error', () => {});
  return emitter;
}

/** The reply code and text of an error the broker closed a channel or a connection with. */
export function reply(error) {
  const text = /with message "(.*)"/s.exec(error?.message)?.[1];
  if (text === undefined) throw new Error('not an error from the broker', { cause: error });
  return { code: error.code ?? Number(/(\d+) \(/.exec(error.message)?.[1]), text };
}

/** Runs `action` and resolves with the reply code and text the broker closes `channel` with. */
export async function channelError(channel, action) {
  const closed = new Promise((resolve) => channel.once('error', resolve));
  const [error] = await Promise.all([soon(closed, 'the channel to be closed'), settled(action)]);
  return reply(error);
}

/** Runs `action` and resolves with the reply code and text the broker closes `connection` with. */
export async function connectionError(connection, action) {
  const closed = new Promise((resolve) => connection.once('close', resolve));
  const [error] = await Promise.all([soon(closed, 'the connection to be closed'), settled(action)]);
  return reply(error);
}

async function settled(action) {
  try {
    await action();
  } catch {
    // The same error as the event's, or one that says the channel is gone.
  }
}
