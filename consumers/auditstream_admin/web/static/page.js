// Behaviour beyond links and forms. Every page also works without this file.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");
  const find = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const isTyping = (element) => element.closest("input:not([type=checkbox], [type=radio]), textarea, select") !== null;
  const hasRoom = () => matchMedia("(min-width: 960px)").matches;

  const announce = (text) => { find("#status").textContent = text; };
  const toast = (text) => {
    const message = document.createElement("p");
    message.className = "toast";
    message.textContent = text;
    find("#toasts").append(message);
    setTimeout(() => message.remove(), 6000);
  };

  // Parameters of the address that change without a request.
  const setParameter = (name, value) => {
    const url = new URL(location.href);
    if (value === null) url.searchParams.delete(name); else url.searchParams.set(name, value);
    history.replaceState(history.state, "", url);
  };

  // Requests: no empty parameters, no panel on a narrow screen, one message for a failed request.
  const cleanParameters = (parameters) => {
    const range = find("#filter input[name=range]");
    for (const [name, value] of [...parameters.entries()]) {
      if (typeof value === "string" && value.trim() === "") {
        const values = parameters.getAll(name).filter((other) => other.trim() !== "");
        parameters.delete(name);
        values.forEach((other) => parameters.append(name, other));
      }
    }
    if (parameters.has("from") || (range && "default" in range.dataset)) parameters.delete("range");
    if (parameters.get("tz") === "UTC") parameters.delete("tz");
  };
  document.addEventListener("formdata", (event) => { if (event.target.id === "filter") cleanParameters(event.formData); });
  document.addEventListener("htmx:configRequest", (event) => {
    if (event.target.id === "filter") cleanParameters(event.detail.formData ?? event.detail.parameters);
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    const { elt } = event.detail;
    if (elt.matches(".open") && !hasRoom()) {
      event.preventDefault();
      location.assign(elt.href);
    } else if (elt.id === "tail" && document.hidden) {
      event.preventDefault();
    }
  });
  const reportFailure = (event) => {
    const { elt, xhr } = event.detail;
    find("#arriving")?.classList.toggle("is-away", elt.id === "tail");
    if (elt.id === "tail" || elt.dataset.underWay !== undefined) return;
    let text = "The server cannot be reached. Try again in a minute.";
    if (xhr?.status) {
      text = `The server responded with status ${xhr.status}.`;
      try { text = JSON.parse(xhr.responseText).detail; } catch {
        const page = new DOMParser().parseFromString(xhr.responseText, "text/html");
        text = find("h1 + p", page)?.textContent ?? text;
      }
    }
    toast(text);
  };
  document.addEventListener("htmx:responseError", reportFailure);
  document.addEventListener("htmx:sendError", reportFailure);
  document.addEventListener("htmx:timeout", reportFailure);

  // The panel beside the list.
  let panelTakesFocus = true;
  const isPanelOpen = () => find("#panel .event") !== null;
  const markRow = () => {
    const id = find("#panel .event")?.dataset.id;
    all(".row.is-open").forEach((row) => row.classList.remove("is-open"));
    if (id) document.getElementById(`e-${id}`)?.classList.add("is-open");
  };
  const closePanel = () => {
    const id = find("#panel .event")?.dataset.id;
    find("#panel").replaceChildren();
    setParameter("open", null);
    markRow();
    if (id) find(`#e-${CSS.escape(id)} .open`)?.focus({ preventScroll: true });
  };
  const openRow = (row, takesFocus) => {
    panelTakesFocus = takesFocus;
    find(".open", row)?.click();
  };
  const rows = () => all(".list .row:has(.open)");
  const step = (by) => {
    const list = rows();
    if (!list.length) return;
    const focused = list.findIndex((row) => row.contains(document.activeElement));
    const open = list.findIndex((row) => row.classList.contains("is-open"));
    const from = focused >= 0 ? focused : open;
    const next = list[Math.min(Math.max(from + by, 0), list.length - 1)];
    find(".open", next).focus({ preventScroll: true, focusVisible: true });
    next.scrollIntoView({ block: "nearest" });
    const top = next.getBoundingClientRect().top;
    if (top < 100) scrollBy(0, top - 100);
    if (isPanelOpen()) openRow(next, false);
  };

  // After htmx has replaced a part of the page.
  document.addEventListener("htmx:afterSwap", (event) => {
    const { target } = event.detail;
    if (target.id === "panel" && isPanelOpen()) {
      setParameter("open", find("#panel .event").dataset.id);
      markRow();
      find("#panel").scrollTop = 0;
      if (panelTakesFocus) find("#panel .action").focus({ preventScroll: true });
      panelTakesFocus = true;
    }
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.requestConfig?.boosted || event.detail.target.id === "main") {
      const sum = find(".sum")?.innerText.split("\n")[0];
      if (sum) announce(sum);
      if (document.activeElement === document.body) find("#main")?.focus({ preventScroll: true });
    }
  });

  // Live: removes rows that the page already has, and limits the number of rows.
  const tidyLive = () => {
    const arriving = find("#arriving");
    if (!arriving) return;
    arriving.classList.remove("is-away");
    const seen = new Set(all("#rows .row").map((row) => row.id));
    for (const row of all(".row", arriving)) {
      if (seen.has(row.id)) row.remove(); else seen.add(row.id);
    }
    all(".row", arriving).slice(500).forEach((row) => row.remove());
    const count = all(".row", arriving).length;
    find("[data-arrived]").textContent = count ? `${count} since you opened this page` : "no new events yet";
  };

  // Histogram: one tab stop, arrow keys move between bars, dragging selects a range.
  const wireHistogram = (svg) => {
    const bars = all("a", svg);
    const buckets = all("a, g", svg);
    const readout = find("[data-readout]");
    const label = (bucket) => bucket.getAttribute("aria-label") ?? bucket.dataset.label;
    const rest = () => { if (readout) readout.textContent = readout.dataset.rest; };
    bars.forEach((bar, number) => bar.setAttribute("tabindex", number === bars.length - 1 ? "0" : "-1"));
    const enter = (bar) => {
      bars.forEach((other) => other.setAttribute("tabindex", other === bar ? "0" : "-1"));
      bar?.focus();
    };
    svg.addEventListener("keydown", (event) => {
      const focused = bars.indexOf(document.activeElement);
      const to = { ArrowLeft: focused - 1, ArrowRight: focused + 1, Home: 0, End: bars.length - 1 }[event.key];
      if (to === undefined || focused < 0) return;
      event.preventDefault();
      enter(bars[Math.min(Math.max(to, 0), bars.length - 1)]);
    });
    const show = (event) => {
      const bucket = event.target.closest("a, g");
      if (bucket && readout) readout.textContent = label(bucket);
    };
    svg.addEventListener("pointerover", show);
    svg.addEventListener("focusin", show);
    svg.addEventListener("pointerleave", rest);
    svg.addEventListener("focusout", rest);

    const brush = find(".brush", svg);
    let from = -1;
    let to = -1;
    const at = (event) => {
      const box = svg.getBoundingClientRect();
      const fraction = (event.clientX - box.left) / box.width;
      return Math.min(Math.max(Math.floor(fraction * buckets.length), 0), buckets.length - 1);
    };
    const clear = () => { from = to = -1; brush.setAttribute("width", "0"); };
    svg.addEventListener("dragstart", (event) => event.preventDefault());
    svg.addEventListener("pointerdown", (event) => { if (event.button === 0) from = to = at(event); });
    svg.addEventListener("pointermove", (event) => {
      if (from < 0 || event.pointerType === "touch") return;
      to = at(event);
      if (to === from) return;
      if (!svg.hasPointerCapture(event.pointerId)) svg.setPointerCapture(event.pointerId);
      brush.setAttribute("x", String(Math.min(from, to) * 10));
      brush.setAttribute("width", String((Math.abs(to - from) + 1) * 10));
    });
    svg.addEventListener("pointercancel", clear);
    svg.addEventListener("pointerup", () => {
      if (from >= 0 && to !== from) {
        const url = new URL(svg.dataset.query, location.href);
        ["range", "from", "to"].forEach((name) => url.searchParams.delete(name));
        url.searchParams.set("from", buckets[Math.min(from, to)].dataset.start);
        url.searchParams.set("to", buckets[Math.max(from, to)].dataset.end);
        go(url.pathname + url.search);
      }
      clear();
    });
  };
  const go = (address) => {
    const link = document.createElement("a");
    link.href = address;
    find("#main").append(link);
    window.htmx?.process(link);
    link.click();
    link.remove();
  };

  // The tree of actions: a checked folder includes everything below it.
  const wireTree = (tree) => {
    const below = (box) => all(":scope ul input", box.closest("li"));
    const show = () => all(".folder input", tree).forEach((box) => below(box).forEach((input) => {
      input.disabled = box.checked || box.disabled;
    }));
    tree.addEventListener("change", show);
    show();
    const search = find("[data-tree-search]", tree.closest(".pop"));
    search.addEventListener("input", () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      all("li", tree).reverse().forEach((item) => {
        const leaf = find(":scope > [data-leaf]", item);
        const isShown = leaf ? words.every((word) => leaf.dataset.leaf.includes(word))
          : find(":scope li:not(.none)", item) !== null || !find(":scope ul", item);
        item.classList.toggle("none", !isShown);
        const branch = find(":scope > details", item);
        if (branch) branch.open = words.length ? isShown : find("input:checked", item) !== null;
      });
    });
    search.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      find("li:not(.none) > [data-leaf] input", tree)?.click();
    });
  };

  // Time zones: the browser's own zone is listed second. Changing the zone keeps the instants of the range.
  const wireZones = (select) => {
    select.addEventListener("change", () => {
      const url = new URL(select.dataset.zones, location.href);
      if (select.value === "UTC") url.searchParams.delete("tz"); else url.searchParams.set("tz", select.value);
      go(url.pathname + url.search);
    });
    const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (!own || own === "UTC") return;
    const option = [...select.options].find((other) => other.value === own) ?? new Option(own, own);
    option.value = own;
    option.textContent = `${own} (yours)`;
    if (!option.selected) select.insertBefore(option, select.options[1]);
  };

  // Search in a payload.
  const search = (input) => {
    const text = document.getElementById(input.dataset.find);
    const counter = input.parentElement.querySelector("output");
    CSS.highlights?.delete("found");
    const needle = input.value.toLowerCase();
    counter.textContent = "";
    if (!needle || !CSS.highlights) return;
    const ranges = [];
    const walker = document.createTreeWalker(text, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const low = node.data.toLowerCase();
      for (let at = low.indexOf(needle); at >= 0; at = low.indexOf(needle, at + needle.length)) {
        const range = new Range();
        range.setStart(node, at);
        range.setEnd(node, at + needle.length);
        ranges.push(range);
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
    counter.textContent = ranges.length ? String(ranges.length) : "none";
    const box = ranges[0]?.getBoundingClientRect();
    if (box) text.scrollTop += box.top - text.getBoundingClientRect().top - text.clientHeight / 3;
  };

  const copy = async (text, what) => {
    try {
      await navigator.clipboard.writeText(text);
      announce(`${what} copied`);
      toast(`${what} copied`);
    } catch {
      toast("The browser does not allow this page to copy; select the text and copy it yourself.");
    }
  };

  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest(selector);
    all(".menu[open]").forEach((menu) => { if (!menu.contains(event.target)) menu.open = false; });
    if (at("[data-help]")) find("#help").showModal();
    if (at("[data-close]")) { event.preventDefault(); closePanel(); }
    const plain = at("[data-copy]");
    if (plain) copy(plain.dataset.copy, plain.getAttribute("aria-label").replace("Copy ", ""));
    const link = at("[data-copy-link]");
    if (link) copy(new URL(link.dataset.copyLink, location.href).href, "Link");
    const source = at("[data-copy-from]");
    if (source) copy(document.getElementById(source.dataset.copyFrom).textContent, "JSON");
    if (event.target.id === "help") event.target.close();
  });
  document.addEventListener("input", (event) => { if (event.target.matches("[data-find]")) search(event.target); });
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-now]")) event.target.form.requestSubmit();
  });
  document.addEventListener("toggle", (event) => {
    const menu = event.target;
    if (!menu.matches?.(".menu") || !menu.open) return;
    all(".menu[open]").forEach((other) => { if (other !== menu) other.open = false; });
    if (hasRoom()) find("input[type=search], input:not([type])", menu)?.focus();
  }, true);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || find("#help").open) return;
    if (event.key === "Escape") {
      const menu = find(".menu[open]");
      if (menu) { menu.open = false; find("summary", menu).focus(); return; }
      if (isTyping(event.target) && event.target.value) return;
      if (isTyping(event.target)) { event.target.blur(); return; }
      if (isPanelOpen()) closePanel();
      return;
    }
    if (isTyping(event.target)) return;
    const press = {
      "/": () => find("#q")?.select(),
      j: () => step(1),
      k: () => step(-1),
      "?": () => find("#help").showModal(),
      "[": () => find(".pager [rel=prev]")?.click(),
      "]": () => find(".pager [rel=next]")?.click(),
    }[event.key];
    if (!press) return;
    event.preventDefault();
    press();
  });

  const wire = (part) => {
    const apply = (selector, act) => [...(part.matches?.(selector) ? [part] : []), ...all(selector, part)].forEach(act);
    apply("[data-histogram]", wireHistogram);
    apply(".tree", wireTree);
    apply("[data-zones]", wireZones);
    if (find("#arriving", part) || part.closest?.("#arriving")) tidyLive();
  };
  document.addEventListener("htmx:load", (event) => wire(event.detail.elt));
  if (!window.htmx) wire(document);
})();
