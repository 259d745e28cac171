// Before anything is drawn: the theme that was chosen, or none for the system's.
{
  let theme = null;
  try {
    theme = localStorage.getItem('wardrobe.theme');
  } catch {
    // Storage is switched off; the system's theme it is.
  }
  if (theme === 'light' || theme === 'dark') {
    document.documentElement.dataset.theme = theme;
  }
}
