// The stream of server-sent events. The browser comes back by itself and says what it has; a stream that is silent for
// longer than two beats is as good as gone, and one that was refused is asked for again.

const SILENT_MS = 15000;
const AGAIN_MS = 3000;

export function connect({ snapshot, changes, clock, state }) {
  let source, last = "", heard = performance.now(), ended = false, waiting;

  const open = () => {
    waiting = undefined;
    heard = performance.now();
    source = new EventSource(last ? `/events?after=${encodeURIComponent(last)}` : "/events");
    const on = (kind, take) => source.addEventListener(kind, (event) => {
      heard = performance.now();
      last = event.lastEventId || last;
      state("live");
      take(JSON.parse(event.data));
    });
    on("snapshot", snapshot);
    on("changes", changes);
    on("clock", clock);
    source.addEventListener("end", () => {
      ended = true;
      source.close();
      state("ended");
    });
    source.addEventListener("error", () => {
      if (ended) return;
      state("lost");
      if (source.readyState === EventSource.CLOSED) again();
    });
  };
  const again = () => {
    source.close();
    waiting ??= setTimeout(open, AGAIN_MS);
  };
  setInterval(() => {
    if (!ended && waiting === undefined && performance.now() - heard > SILENT_MS) {
      state("lost");
      again();
    }
  }, 1000);
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => event.persisted && !ended && open());
  open();
}
