// The pack's words in the page's language (locales/<language>/main.json), or in English where it has none in that one.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

let translations;

export async function ownWords() {
  translations ??= api.fetchApi("/i18n").then((answer) => answer.json());
  const all = await translations;
  return all[app.extensionManager.setting.get("Comfy.Locale")]?.nagPag ?? all.en.nagPag;
}

// How a choice shows a word: with what it means behind it, if that is another word. What is saved and sent is the word.
export function shownWith(meanings) {
  return (word) => {
    const meaning = meanings?.[word];
    return meaning && meaning !== word ? `${word} (${meaning})` : (word ?? "");
  };
}
