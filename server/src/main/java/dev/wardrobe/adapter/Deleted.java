package dev.wardrobe.adapter;

import java.util.List;

/**
 * A version that is gone.
 *
 * @param digest what it stood for
 * @param aliases those that pointed to it
 */
record Deleted(String digest, List<String> aliases) {}
