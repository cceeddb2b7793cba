// Starts and stops a Warren process for tests.

import { spawn } from 'node:child_process';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { within } from './deadline.js';

const STARTUP_DEADLINE_MS = 10_000;
const SHUTDOWN_DEADLINE_MS = 15_000;

export class Broker {
  /** Starts Warren with nothing in it on a free port; resolves once its `ready` line was printed. */
  static async start() {
    const broker = new Broker(await mkdtemp(path.join(tmpdir(), 'warren-node-')));
    try {
      await broker.startAgain();
    } catch (error) {
      await broker.remove();
      throw error;
    }
    return broker;
  }

  port = 0;

  #directory;
  #process;
  #exited;

  constructor(directory) {
    this.#directory = directory;
  }

  get url() {
    return `amqp://guest:guest@127.0.0.1:${this.port}/`;
  }

  /** Starts the broker with the data and on the port that it had. */
  async startAgain() {
    try {
      await this.#launch();
    } catch (error) {
      await this.kill();
      throw new Error(`${error.message}\n${await this.log()}`);
    }
  }

  /** What the broker wrote to its log so far. */
  log() {
    return readFile(this.#logFile, 'utf8').catch(() => '');
  }

  /** Sends SIGTERM; resolves with the exit code, or with the name of the signal that ended it. */
  async stop() {
    this.#process.kill('SIGTERM');
    try {
      return await within(SHUTDOWN_DEADLINE_MS, this.#exited, 'the broker to stop after SIGTERM');
    } finally {
      await this.kill();
    }
  }

  /** Ends the broker without giving it a chance to close connections. */
  async kill() {
    this.#process?.kill('SIGKILL');
    await this.#exited;
  }

  /** Ends the broker and removes its files. */
  async remove() {
    await this.kill();
    await rm(this.#directory, { recursive: true, force: true });
  }

  get #logFile() {
    return path.join(this.#directory, 'broker.log');
  }

  async #launch() {
    const binary = path.resolve(process.env.WARREN_BIN ?? '../../../target/release/warren');
    const data = path.join(this.#directory, 'data');
    const log = await open(this.#logFile, 'a');
    const options = ['--data-dir', data, '--amqp-port', this.port, '--management-port', -1, '--prometheus-port', -1];
    this.#process = spawn(binary, ['serve', ...options.map(String)], { stdio: ['ignore', 'pipe', log.fd] });
    this.#exited = new Promise((resolve) => {
      this.#process.once('exit', (code, signal) => resolve(code ?? signal));
      this.#process.once('error', (error) => resolve(error.message));
    });
    await log.close();
    const ended = this.#exited.then((how) => {
      throw new Error(`the broker ended before it was ready: ${how}`);
    });
    const line = await within(STARTUP_DEADLINE_MS, Promise.race([this.#readyLine(), ended]), 'the ready line');
    const listener = /\bamqp=127\.0\.0\.1:(\d+)/.exec(line);
    if (!listener) throw new Error(`no AMQP listener in the ready line: ${line}`);
    this.port = Number(listener[1]);
  }

  #readyLine() {
    return new Promise((resolve) => {
      createInterface({ input: this.#process.stdout }).on('line', (line) => {
        if (line.startsWith('ready ')) resolve(line);
      });
    });
  }
}
