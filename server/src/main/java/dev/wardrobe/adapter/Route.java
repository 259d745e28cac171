package dev.wardrobe.adapter;

import org.jspecify.annotations.Nullable;

/**
 * Where a request goes that named an adapter of the store.
 *
 * @param name {@code NAME@VERSION}, whatever it was asked for by
 * @param digest what that stands for
 * @param copy the request's copy for a shadow, or null
 */
record Route(String name, String digest, @Nullable ShadowCopy copy) {}
