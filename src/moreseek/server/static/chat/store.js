// Conversations in this browser's IndexedDB. Where there is none (some private windows), they last as long as the page.
import { checked } from "./tree.js";

const FORMAT = "moreseek-conversations";
const channel = new BroadcastChannel("moreseek");
const inMemory = new Map();
let database = null;

const settled = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

// Resolves to whether conversations will still be there after the page.
export async function open() {
  try {
    const request = indexedDB.open("moreseek", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("conversations", { keyPath: "id" });
      request.result.createObjectStore("titles", { keyPath: "id" });
    };
    database = await settled(request);
    database.onversionchange = () => database.close();
  } catch {
    database = null;
  }
  return database !== null;
}

function written(work) {
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(["conversations", "titles"], "readwrite");
    work(transaction.objectStore("conversations"), transaction.objectStore("titles"));
    transaction.oncomplete = resolve;
    transaction.onabort = () => reject(transaction.error);
    transaction.commit(); // now, since the page may be closing
  });
}

const reading = (store) => database.transaction(store).objectStore(store);
const heading = ({ id, title, updated }) => ({ id, title, updated });

export async function list() {
  const found = database ? await settled(reading("titles").getAll()) : [...inMemory.values()].map(heading);
  return found.sort((one, other) => other.updated - one.updated);
}

export async function load(id) {
  return (database ? await settled(reading("conversations").get(id)) : structuredClone(inMemory.get(id))) ?? null;
}

export async function save(conversation) {
  if (conversation.deleted) return;
  const data = conversation.toData();
  if (database) await written((whole, titles) => [whole.put(data), titles.put(heading(data))]);
  else inMemory.set(data.id, structuredClone(data));
}

export async function remove(id) {
  inMemory.delete(id);
  if (database) await written((whole, titles) => [whole.delete(id), titles.delete(id)]);
}

export async function exported(ids) {
  const conversations = [];
  for (const id of ids) conversations.push(await load(id));
  return JSON.stringify({ format: FORMAT, version: 1, conversations: conversations.filter(Boolean) }, null, 1);
}

// How many conversations came in. One that is here already is replaced where the file's is newer.
export async function imported(text) {
  const found = JSON.parse(text);
  if (found?.format !== FORMAT || found.version !== 1 || !Array.isArray(found.conversations)) throw new Error("another format");
  const conversations = found.conversations.map(checked);
  let count = 0;
  for (const data of conversations) {
    const here = await load(data.id);
    if (here && here.updated >= data.updated) continue;
    await save({ toData: () => data });
    count += 1;
  }
  return count;
}

// Other tabs hear what ended or was deleted here.
export const tellOthers = (id) => channel.postMessage(id);
export const onOthers = (hear) => channel.addEventListener("message", (event) => hear(event.data));
