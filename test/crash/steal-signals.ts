// steal-signals.ts - preloaded into the service (node --import): what some shutdown helpers do to a process, when SIGUSR2
// tells them to.
process.on("SIGUSR2", () => {
  process.removeAllListeners("SIGTERM");
  process.on("SIGBUS", () => {});
});
