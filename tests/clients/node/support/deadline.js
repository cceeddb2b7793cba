// Waiting that always ends.

/** How long a test waits for something the broker must do soon. */
export const SOON_MS = 10_000;

/** Resolves like `promise`, or rejects naming `what` after `milliseconds`. */
export function within(milliseconds, promise, what) {
  let timer;
  const expired = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${milliseconds} ms for ${what}`)), milliseconds);
  });
  return Promise.race([promise, expired]).finally(() => clearTimeout(timer));
}

/** Resolves like `promise`, or rejects naming `what` when it takes longer than it should. */
export const soon = (promise, what) => within(SOON_MS, promise, what);

export const delay = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Calls `probe` until it returns something truthy, and resolves with that. */
export async function eventually(probe, what, milliseconds = SOON_MS) {
  const end = Date.now() + milliseconds;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${milliseconds} ms until ${what}`);
    await delay(20);
  }
}
