// Runs every test file with one broker, and fails when the broker does not stop cleanly afterwards.

import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { Broker } from './support/broker.js';

const broker = process.env.AMQP_URL ? undefined : await Broker.start();
const files = readdirSync('test').filter((name) => name.endsWith('.test.js'));
const options = ['--test', '--test-concurrency=4', '--test-timeout=60000', '--test-reporter=spec', ...process.argv.slice(2)];
const tests = spawn(process.execPath, [...options, ...files.map((name) => `test/${name}`)], {
  stdio: 'inherit',
  env: { ...process.env, BROKER_URL: process.env.AMQP_URL ?? broker.url },
});
process.exitCode = await new Promise((resolve) => tests.once('exit', (code) => resolve(code ?? 1)));

if (broker) {
  const log = await broker.log();
  const exit = await broker.stop();
  await broker.remove();
  if (exit !== 0) console.error(`the broker ended with ${exit} after SIGTERM, expected exit code 0`);
  if (exit !== 0 || process.exitCode !== 0) {
    console.error(`end of the broker's log:\n${log.slice(-10_000)}`);
    process.exitCode ||= 1;
  }
}
