package dev.wardrobe.adapter;

/**
 * A version that is in the store.
 *
 * @param name {@code NAME@VERSION}
 * @param existed whether it was there before, with that content
 */
public record Published(String name, String version, boolean existed) {}
