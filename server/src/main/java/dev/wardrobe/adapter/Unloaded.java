package dev.wardrobe.adapter;

/**
 * A name that has been forgotten.
 *
 * @param digest what it stood for
 * @param inUse requests that still use it under this name; its memory is freed after the last
 */
public record Unloaded(String digest, int inUse) {}
