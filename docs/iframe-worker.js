// A page that was opened from a file may start no worker, and the search is one. There it runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.started = new Promise(started => {
        frame.onload = () => {
          const worker = frame.contentWindow;
          worker.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}));
          const script = worker.document.createElement("script");
          script.src = url;
          script.onload = () => started(worker);
          worker.document.body.append(script);
        };
      });
      document.body.append(frame);
    }

    async postMessage(data) {
      (await this.started).dispatchEvent(new MessageEvent("message", {data}));
    }
  };
}
