// Signals that stop something.

/** Resolves when a signal stops what it belongs to. */
export function stopped(signal) {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
