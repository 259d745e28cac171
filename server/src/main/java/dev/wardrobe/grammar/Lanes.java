package dev.wardrobe.grammar;

import java.util.concurrent.Executor;

/**
 * Who compiles and makes masks. Everything is tried by {@code quick}, in turn and for some
 * milliseconds; what takes longer is begun anew by {@code slow}, where it delays nobody but its
 * like.
 */
record Lanes(Executor quick, Executor slow) {}
