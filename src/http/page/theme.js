// The theme: light, dark, or what the system has. A script of its own that is run before anything is painted, so that a
// remembered one does not flash.

'use strict';

function useTheme(theme) {
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

/** What is done with storage, which may be forbidden: then nothing is remembered. */
function withStorage(use) {
  try { use(localStorage); } catch { /* So be it. */ }
}

withStorage((storage) => useTheme(storage.theme));

document.addEventListener('DOMContentLoaded', () => {
  for (const radio of document.querySelectorAll('input[name=theme]')) {
    radio.checked = radio.value === (document.documentElement.dataset.theme ?? 'auto');
    radio.addEventListener('change', () => {
      useTheme(radio.value);
      withStorage((storage) => { storage.theme = radio.value; });
    });
  }
});
