// Browsers start no worker for a page that was opened as a file. There, the search runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      const scope = frame.contentWindow
      const load = source =>
        new Promise((resolve, reject) => {
          const script = scope.document.createElement("script")
          script.src = source
          script.onload = resolve
          script.onerror = reject
          scope.document.head.append(script)
        })
      scope.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      scope.importScripts = (...sources) => Promise.all(sources.map(load))
      this._deliver = data => scope.dispatchEvent(new MessageEvent("message", { data }))
      this._ready = load(url)
      this._frame = frame
    }

    postMessage(data) {
      this._ready.then(() => this._deliver(data))
    }

    terminate() {
      this._frame.remove()
    }
  }
}
