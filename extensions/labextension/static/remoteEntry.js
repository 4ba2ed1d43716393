/*
 * "Share..." and "Copy VOSpace address" in the context menu of JupyterLab's file browser, and cells that wait for their
 * kernel.
 *
 * A federated module as JupyterLab loads it: an object with `init`, which gets the modules that all extensions share, and
 * `get`, which gives the plugins. It is written by hand, because all it needs is in JupyterLab already: nothing to build,
 * and nothing of JupyterLab in here twice.
 *
 * What the page cannot know comes from the server, as the option `astrocloud` of the page (see server_extension.py): the
 * authority of node URIs, the address of My files, the folder that is VOSpace's root, and all texts.
 */
(() => {
  "use strict";

  const NAME = "astrocloud-lab";
  const ITEM = ".jp-DirListing-item[data-isdir]";
  const COPY = "astrocloud:copy-vospace-address";
  const SHARE = "astrocloud:share";
  const ADDRESSED = new Set(["home", "project", "archive", "course"]);
  const SHARED = new Set(["home", "project"]);
  let scope = null;

  /** Return a module of JupyterLab: the one that is in use already where there are several. */
  async function shared(name) {
    const found = Object.values(scope[name] ?? {});
    const entry = found.find((one) => one.loaded) ?? found[0];
    if (!entry) {
      throw new Error(`${NAME}: JupyterLab shares no ${name}`);
    }
    const factory = await entry.get();
    return factory();
  }

  /** Return a name as a segment of a node URI, as the VOSpace service writes it. */
  function encodeName(name) {
    let text = "";
    for (const char of name) {
      const code = char.codePointAt(0);
      if (/[A-Za-z0-9!$&'()*+,;=:@~._-]/.test(char) || (code > 0x9f && /[\p{L}\p{M}\p{N}\p{P}\p{S}]/u.test(char))) {
        text += char;
      } else if (code >= 0xdc80 && code <= 0xdcff) {
        // A byte of a name that is not UTF-8, as Python passes it on.
        text += `%${(code & 0xff).toString(16).toUpperCase()}`;
      } else {
        text += encodeURIComponent(char);
      }
    }
    return text;
  }

  /** Return the names below VOSpace's root of a path of the Lab; none for what VOSpace does not have. */
  function namesOf(path, contents, root) {
    const drive = contents.driveName(path);
    if (drive !== "" && drive !== "RTC") {
      return [];
    }
    const absolute = `/${contents.localPath(path)}`;
    if (!absolute.startsWith(`${root}/`)) {
      return [];
    }
    return absolute.slice(root.length).split("/").filter((name) => name);
  }

  /** Return the `astrocloud` option of this page, or null on a server that is no platform's. */
  function optionsOf(coreutils) {
    const text = coreutils.PageConfig.getOption("astrocloud");
    const options = text ? JSON.parse(text) : null;
    return options && options.authority ? options : null;
  }

  /** Put a text on the clipboard; the modern way exists only on secure pages. */
  async function toClipboard(text, apputils) {
    if (window.isSecureContext && navigator.clipboard) {
      await navigator.clipboard.writeText(text);
    } else {
      apputils.Clipboard.copyToSystem(text);
    }
  }

  /**
   * Name other packages' commands in the person's language where their makers did not.
   *
   * Lumino has no way to change a label; where its table looks different one day, the labels stay English.
   */
  function relabel(commands, words, language) {
    for (const [key, texts] of Object.entries(words)) {
      const id = key.startsWith("label.") ? key.slice("label.".length) : "";
      const command = id ? commands._commands?.get(id) : null;
      if (command?.label) {
        command.label = () => texts[language];
        commands.notifyCommandChanged(id);
      }
    }
  }

  /** Add both commands and their places in the menu. */
  function activate(modules, app, factory, translator) {
    const options = optionsOf(modules.coreutils);
    if (!options) {
      return;
    }
    const language = (translator?.languageCode ?? "en").toLowerCase().startsWith("zh") ? "zh" : "en";
    const say = (key) => options.words[key][language];
    if (language !== "en") {
      app.restored.then(() => relabel(app.commands, options.words, language));
    }
    const contents = app.serviceManager.contents;

    /** Return the names of what is selected, or nothing if one of it is not in `tops` or is a top itself. */
    function selected(tops) {
      const widget = factory.tracker.currentWidget;
      const all = Array.from(widget ? widget.selectedItems() : [], (item) => namesOf(item.path, contents, options.root));
      return all.every((names) => names.length > 1 && tops.has(names[0])) ? all : [];
    }

    app.commands.addCommand(SHARE, {
      label: () => say("files.share"),
      isVisible: () => selected(SHARED).length > 0,
      isEnabled: () => selected(SHARED).length === 1,
      execute: () => {
        const [names] = selected(SHARED);
        if (names) {
          const page = new URL(options.files, window.location.origin);
          page.search = new URLSearchParams({ path: `/${names.join("/")}`, share: "1" });
          window.open(page, "_blank", "noopener");
        }
      },
    });

    app.commands.addCommand(COPY, {
      label: () => say("files.copy-address"),
      isVisible: () => selected(ADDRESSED).length > 0,
      execute: async () => {
        const found = selected(ADDRESSED);
        const addresses = found.map((names) => `vos://${options.authority}/${names.map(encodeName).join("/")}`);
        if (addresses.length === 0) {
          return;
        }
        const { Notification } = modules.apputils;
        try {
          await toClipboard(addresses.join("\n"), modules.apputils);
        } catch (error) {
          // The browser refused; the address is shown, so that it can be marked and copied.
          console.warn(`${NAME}:`, error);
          Notification.warning(`${say("files.not-copied")} ${addresses.join(" ")}`, { autoClose: false });
          return;
        }
        const told = addresses.length === 1 ? say("files.copied") : say("files.copied-several");
        const values = { count: addresses.length, address: addresses[0] };
        Notification.success(told.replace(/\{(\w+)\}/g, (_, name) => values[name]), { autoClose: 5000 });
      },
    });

    app.contextMenu.addItem({ command: COPY, selector: ITEM, rank: 14.5 });
    app.contextMenu.addItem({ command: SHARE, selector: ITEM, rank: 16.5 });
  }

  /**
   * Run a cell once its kernel has started.
   *
   * JupyterLab's own executor asks for a kernel where it sees none yet, which gets into the way of the start that is
   * under way: cells that are run in the first second are lost without a word.
   */
  async function runWhenReady(notebook, options) {
    const { cell, sessionContext } = options;
    if (sessionContext && !sessionContext.isDisposed && !sessionContext.isReady) {
      if (cell.model.type === "code") {
        cell.setPrompt("*");
      }
      await sessionContext.ready;
    }
    return notebook.runCell(options);
  }

  /** Return the module `./extension`, with the plugins that JupyterLab is to start. */
  async function extension() {
    const names = ["filebrowser", "translation", "apputils", "coreutils", "notebook"];
    const loaded = await Promise.all(names.map((name) => shared(`@jupyterlab/${name}`)));
    const modules = Object.fromEntries(names.map((name, index) => [name, loaded[index]]));
    const files = {
      id: `${NAME}:files`,
      description: "Adds Share and Copy VOSpace address to the file browser's context menu.",
      autoStart: true,
      requires: [modules.filebrowser.IFileBrowserFactory],
      optional: [modules.translation.ITranslator],
      activate: (app, factory, translator) => activate(modules, app, factory, translator),
    };
    // In place of `@jupyterlab/notebook-extension:cell-executor`, which page_config.json turns off.
    const executor = {
      id: `${NAME}:cell-executor`,
      description: "Runs cells once their kernel has started.",
      autoStart: true,
      provides: modules.notebook.INotebookCellExecutor,
      activate: () => Object.freeze({ runCell: (options) => runWhenReady(modules.notebook, options) }),
    };
    return { __esModule: true, default: [files, executor] };
  }

  window._JUPYTERLAB = window._JUPYTERLAB ?? {};
  window._JUPYTERLAB[NAME] = {
    init: (given) => {
      scope = given;
    },
    get: async (module) => {
      if (module !== "./extension") {
        throw new Error(`${NAME}: there is no module ${module}`);
      }
      const made = await extension();
      return () => made;
    },
  };
})();
