// All that the page says, in both languages.
import { chosen } from "./preferences.js";

const WORDS = {
  en: {
    skip: "Skip to your message", conversations: "Conversations", newChat: "New chat", menu: "List of conversations", model: "Model",
    second: "Second model", compare: "Compare two models", settings: "Settings", close: "Close", other: "中文",
    page: "Chat", log: "Conversation", question: "Your message", hint: "Ask anything", send: "Send", stop: "Stop", latest: "To the latest",
    greeting: "What shall we work out?", lead: "You see the answer as it is written, and the thinking behind it.",
    example1: "What is 17 × 24? Show your steps.", example2: "Which is larger, 9.11 or 9.9?",
    example3: "Write a Python function that tells whether a number is prime.",
    you: "You", thinking: "Thinking", thought: "Thought", seconds: "{n} s", characters: "{n} characters", tokens: "{n} tokens", tokensOne: "{n} token",
    speed: "{n} tokens/s", waiting: "Waiting for the first word", copy: "Copy", copied: "Copied", copyCode: "Copy code",
    edit: "Edit", editing: "Edit your message", cancel: "Cancel", again: "Answer again", before: "Previous version",
    after: "Next version", version: "{n} of {m}", stopped: "Stopped.", cut: "Cut at the limit of tokens.",
    interrupted: "Interrupted: the page was closed while this was written.", lost: "The connection broke off.",
    unreachable: "The server cannot be reached.", failed: "No answer: {why}", answering: "The answer is being written.",
    finished: "Answer finished.", goOn: "Continue with this answer", goingOn: "Continuing with this answer",
    keyAsked: "This server asks for an API key.", key: "API key", keyKept: "Kept in this tab only.", save: "Save",
    temperature: "Temperature", maxTokens: "Most tokens of an answer", byModel: "the server's own", thinkingMode: "Thinking",
    thinkModel: "As the model does", thinkOn: "On", thinkOff: "Off", system: "Instructions for the model",
    documents: "Documents", documentsOn: "Answer from them", documentsOff: "Do not look", sources: "{n} sources", sourcesOne: "{n} source",
    place: "{file}, line {line}",
    theme: "Theme", themeSystem: "As the system", themeLight: "Light", themeDark: "Dark", language: "Language",
    exportAll: "Export all", importFile: "Import", imported: "{n} conversations imported.",
    importedOne: "{n} conversation imported.",
    importFailed: "This file holds no conversations of moreseek: {why}.",
    remove: "Delete", removeThis: "Delete “{title}”",
    removeAsk: "Delete this conversation? It cannot be brought back.", keep: "Keep", removed: "Deleted.",
    empty: "Nothing here yet.", untitled: "Untitled", notKept: "This browser keeps nothing for this page: conversations end with it.",
    notSaved: "The conversation could not be kept: the browser's storage is full or closed.", noModels: "No model is served.",
    keys: "Enter sends, Shift+Enter begins a new line, Esc stops, ↑ in an empty field edits your last message.",
  },
  zh: {
    skip: "跳到输入框", conversations: "对话", newChat: "新对话", menu: "对话列表", model: "模型",
    second: "第二个模型", compare: "对比两个模型", settings: "设置", close: "关闭", other: "English",
    page: "聊天", log: "对话内容", question: "你的消息", hint: "想问什么？", send: "发送", stop: "停止", latest: "到最新",
    greeting: "一起想想看？", lead: "答案边写边显示，思考过程也看得见。",
    example1: "17 × 24 等于多少？请写出步骤。", example2: "9.11 和 9.9 哪个大？", example3: "写一个判断质数的 Python 函数。",
    you: "你", thinking: "思考中", thought: "思考过程", seconds: "{n} 秒", characters: "{n} 字", tokens: "{n} 词元",
    speed: "{n} 词元/秒", waiting: "等待第一个字", copy: "复制", copied: "已复制", copyCode: "复制代码",
    edit: "编辑", editing: "编辑你的消息", cancel: "取消", again: "重新回答", before: "上一个版本",
    after: "下一个版本", version: "第 {n} 个，共 {m} 个", stopped: "已停止。", cut: "达到词元上限，未写完。",
    interrupted: "已中断：写到一半时页面被关闭。", lost: "连接中断。",
    unreachable: "无法连接服务器。", failed: "没有回答：{why}", answering: "正在写答案。",
    finished: "回答完毕。", goOn: "用这个回答继续", goingOn: "正用这个回答继续",
    keyAsked: "这个服务器需要 API 密钥。", key: "API 密钥", keyKept: "只保存在此标签页中。", save: "保存",
    temperature: "温度", maxTokens: "回答的最多词元数", byModel: "服务器默认", thinkingMode: "思考",
    thinkModel: "由模型决定", thinkOn: "开", thinkOff: "关", system: "给模型的指示",
    documents: "文档", documentsOn: "参考文档作答", documentsOff: "不查文档", sources: "{n} 个来源", place: "{file}，第 {line} 行",
    theme: "主题", themeSystem: "跟随系统", themeLight: "浅色", themeDark: "深色", language: "语言",
    exportAll: "全部导出", importFile: "导入", imported: "已导入 {n} 个对话。", importFailed: "文件中没有 moreseek 的对话：{why}。",
    remove: "删除", removeThis: "删除“{title}”", removeAsk: "删除这个对话？删除后无法恢复。", keep: "保留", removed: "已删除。",
    empty: "还没有对话。", untitled: "未命名", notKept: "此浏览器不为本页保存内容：关闭页面后对话即消失。",
    notSaved: "对话未能保存：浏览器存储已满或已关闭。", noModels: "没有可用的模型。",
    keys: "Enter 发送，Shift+Enter 换行，Esc 停止，输入框为空时按 ↑ 编辑上一条消息。",
  },
}; // prettier-ignore

export function say(word, values = {}) {
  return WORDS[chosen.language][word].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// "1 token", "2 tokens"
export function count(word, n) {
  const one = `${word}One`;
  return say(n === 1 && one in WORDS[chosen.language] ? one : word, { n: number(n) });
}

export const number = (value) => value.toLocaleString(chosen.language);

// Seconds, with one decimal while they are few.
export const seconds = (ms) => say("seconds", { n: ms < 10_000 ? (ms / 1000).toFixed(1) : number(Math.round(ms / 1000)) });

// Puts the words into what stands in the page's HTML.
export function speak() {
  document.documentElement.lang = chosen.language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = say(node.dataset.word);
  for (const node of document.querySelectorAll("[data-hint]")) node.placeholder = say(node.dataset.hint);
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", say(node.dataset.label));
    if (node.tagName === "BUTTON") node.title = say(node.dataset.label);
  }
}
