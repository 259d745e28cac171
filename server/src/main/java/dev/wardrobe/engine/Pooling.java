package dev.wardrobe.engine;

/** How the hidden states of a prompt's tokens, after the final norm, become one vector. */
public enum Pooling {
  /** That of the last token. */
  LAST,

  /** The mean of all tokens'. */
  MEAN
}
