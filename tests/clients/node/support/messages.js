// Publishing, fetching and consuming in the ways tests need.

import { soon } from './deadline.js';

export const body = (message) => message.content.toString();

/** Resolves with null when the broker confirmed the message, with an error when it refused it. */
export function confirmed(channel, exchange, routingKey, content, options = {}) {
  const done = new Promise((resolve) => channel.publish(exchange, routingKey, Buffer.from(content), options, resolve));
  return soon(done, 'a publisher confirm');
}

/** Publishes the bodies to the queue, in order; resolves when the broker confirmed them all. */
export async function fill(channel, queue, bodies, options = {}) {
  for (const content of bodies) channel.sendToQueue(queue, Buffer.from(content), options);
  await soon(channel.waitForConfirms(), 'publisher confirms');
}

/** Takes everything out of the queue; resolves with the messages. */
export async function drain(channel, queue) {
  const messages = [];
  for (;;) {
    const message = await channel.get(queue, { noAck: true });
    if (message === false) return messages;
    messages.push(message);
  }
}

/** Takes everything out of the queue; resolves with the bodies. */
export const drainBodies = async (channel, queue) => (await drain(channel, queue)).map(body);

/** A consumer whose deliveries are read one by one; null stands for a cancellation by the broker. */
export class Inbox {
  static async open(channel, queue, options = {}) {
    const inbox = new Inbox();
    const { consumerTag } = await channel.consume(queue, (message) => inbox.#accept(message), options);
    inbox.consumerTag = consumerTag;
    return inbox;
  }

  /** Deliveries not yet taken. */
  waiting = [];
  #takers = [];

  /** Resolves with the next delivery. */
  take() {
    if (this.waiting.length > 0) return Promise.resolve(this.waiting.shift());
    return soon(new Promise((resolve) => this.#takers.push(resolve)), 'a delivery');
  }

  /** Resolves with the next `count` deliveries. */
  async takeMany(count) {
    const messages = [];
    while (messages.length < count) messages.push(await this.take());
    return messages;
  }

  #accept(message) {
    const taker = this.#takers.shift();
    if (taker) taker(message);
    else this.waiting.push(message);
  }
}

/** The whole numbers 1..count as strings. */
export const numbers = (count) => Array.from({ length: count }, (_, index) => String(index + 1));
