// The list of conversations: open, delete, export, import. Beside the conversation, or over it where the screen is narrow.
import { announce, el, get, icon, iconButton } from "./dom.js";
import * as store from "./store.js";
import { count, say } from "./words.js";

const narrow = matchMedia("(max-width: 50rem)");
const side = get("side");

export function showSide(open) {
  const over = narrow.matches && open;
  document.body.classList.toggle("side-open", open);
  side.inert = !open;
  get("main").inert = over;
  get("scrim").hidden = !over;
  get("menu").setAttribute("aria-expanded", open);
  if (over) get("new-chat").focus();
}

export function closeIfOver() {
  if (!get("scrim").hidden) showSide(false);
}

export async function drawList(current, act) {
  const found = await store.list();
  const items = found.map(({ id, title }) => {
    const name = title || say("untitled");
    const open = el("button", { type: "button", className: "open", onclick: () => act.open(id) }, name);
    if (id === current) open.setAttribute("aria-current", "true");
    const removing = iconButton("remove", say("removeThis", { title: name }), () => confirmRemoval(id, act));
    return el("li", {}, open, removing);
  });
  get("list").replaceChildren(...items);
  get("nothing").hidden = items.length > 0;
  get("export").disabled = items.length === 0;
}

function confirmRemoval(id, act) {
  const dialog = get("removal");
  dialog.returnValue = "";
  dialog.showModal();
  dialog.onclose = async () => {
    if (dialog.returnValue !== "remove") return;
    await act.removed(id);
    announce(say("removed"));
    get("new-chat").focus();
  };
}

function download(text, name) {
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export function listen(act, notify) {
  get("menu").addEventListener("click", () => showSide(!document.body.classList.contains("side-open")));
  get("scrim").addEventListener("click", () => showSide(false));
  side.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || get("scrim").hidden) return;
    showSide(false);
    get("menu").focus();
  });
  narrow.addEventListener("change", () => showSide(!narrow.matches));
  showSide(!narrow.matches);
  get("export").addEventListener("click", async () => {
    const text = await store.exported((await store.list()).map(({ id }) => id));
    download(text, `moreseek-${new Date().toISOString().slice(0, 10)}.json`);
  });
  get("import").addEventListener("click", () => get("file").click());
  get("file").addEventListener("change", async () => {
    const [file] = get("file").files;
    get("file").value = "";
    if (!file) return;
    try {
      notify(count("imported", await store.imported(await file.text())));
      act.imported();
    } catch (error) {
      notify(say("importFailed", { why: error.message }));
    }
  });
  for (const button of document.querySelectorAll("[data-icon]")) button.prepend(icon(button.dataset.icon));
}
