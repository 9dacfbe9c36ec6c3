"use strict";
window.page = (() => {
  const find = (id) => document.getElementById(id);
  const all = (selector, below = document) => [...below.querySelectorAll(selector)];

  // Pictures: each is in the page once, and an image gets it when it comes near the window.
  const pictures = JSON.parse(find("thumbnails").textContent);
  const show = (image) => {
    image.src = "data:image/jpeg;base64," + pictures[Number(image.dataset.thumbnail)];
    delete image.dataset.thumbnail;
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        watcher.unobserve(entry.target);
        if (entry.target.dataset.thumbnail !== undefined) show(entry.target);
      }
    }
  }, { rootMargin: "800px" });
  const watch = (below = document) => all("img[data-thumbnail]", below).forEach((image) => watcher.observe(image));
  watch();
  addEventListener("beforeprint", () => all("img[data-thumbnail]").forEach(show));

  // Filter: every word must be in an element's class or id (a number at the start of a word there: "17" is not meant for
  // the digits within "b96171f7"), and a maker's own condition must hold.
  const filter = find("filter");
  const filtered = find("filtered");
  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const split = (text) => fold(text).split(/\s+/).filter(Boolean);
  const isIn = (word, text) => {
    if (!/^\d+$/.test(word)) return text.includes(word);
    for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
      if (!at || !/[\p{L}\p{N}]/u.test(text[at - 1])) return true;
    }
    return false;
  };
  const fitsAll = (words, text) => words.every((word) => isIn(word, text));
  let entries = null;
  let holds = () => true;
  const list = () => {
    entries ??= all("main [data-class], main [data-id]").map((element) => ({
      element, text: fold(`${element.dataset.class ?? ""} ${element.dataset.id ?? ""}`),
    }));
    return entries;
  };
  const apply = () => {
    const words = split(filter.value);
    let shown = 0;
    for (const entry of list()) {
      const fits = fitsAll(words, entry.text) && holds(entry.element);
      entry.element.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    for (const section of all("main > section")) {
      const own = all("[data-class], [data-id]", section);
      section.querySelector(".none-fits").hidden = !own.length || own.some((element) => !element.hidden);
    }
    filtered.textContent = shown < list().length || words.length ? `${shown} of ${list().length} shown` : "";
  };
  let waiting = 0;
  filter.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(apply, 120);
  });

  // What is scrolled to stays clear of the bar, where that stays at the top.
  const bar = filter.closest(".bar");
  new ResizeObserver(() => {
    const height = getComputedStyle(bar).position === "sticky" ? bar.offsetHeight : 0;
    document.documentElement.style.scrollPaddingTop = `${height + 8}px`;
  }).observe(bar);

  // Keys: items are stops; letters do nothing while a person writes, or where they are switched off.
  const keys = new Map();
  const dialog = find("keys");
  const listItems = () => all("main .item").filter((item) => !item.closest("[hidden]"));
  const currentItem = () => document.activeElement?.closest?.(".item") ?? null;
  const isAt = (item) => item.getBoundingClientRect().bottom > bar.getBoundingClientRect().bottom;
  const goTo = (item) => {
    item.focus({ preventScroll: true });
    item.scrollIntoView({ block: "start", behavior: "instant" });
  };
  const move = (step) => {
    const items = listItems();
    if (!items.length) return;
    const current = currentItem();
    const at = current ? items.indexOf(current) + step : items.findIndex(isAt);
    goTo(items[Math.min(Math.max(at, 0), items.length - 1)]);
  };
  keys.set("j", () => move(1));
  keys.set("k", () => move(-1));
  keys.set("n", () => move(1));
  keys.set("p", () => move(-1));
  keys.set("/", () => { filter.focus(); filter.select(); });
  keys.set("?", () => dialog.showModal());
  all("main .item").forEach((item) => { if (!item.hasAttribute("tabindex")) item.tabIndex = -1; });
  const isWriting = (target) => target.isContentEditable
    || (target.matches?.("input, textarea, select") && !target.matches("[type=radio], [type=checkbox]"));
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    if (event.target === filter && event.key === "Escape") { filter.value = ""; apply(); filter.blur(); }
    if (isWriting(event.target) || !find("keys-on").checked) return;
    const action = keys.get(event.key);
    if (action) { event.preventDefault(); action(); }
  });
  find("show-keys").addEventListener("click", () => dialog.showModal());
  find("hide-keys").addEventListener("click", () => dialog.close());

  return { find, all, fold, split, fitsAll, watch, listItems, currentItem, move, goTo, isWriting, applyFilter: apply, setCondition: (condition) => { holds = condition; apply(); }, addKey: (key, action) => keys.set(key, action) };
})();
