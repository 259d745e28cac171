package dev.wardrobe.text;

import java.util.Iterator;

/** A lazy sequence that can be gone through once; it has no length. */
record Generator(Iterator<Object> items) {}
