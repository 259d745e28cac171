package dev.wardrobe.adapter;

import java.nio.file.Path;

/**
 * A file that somebody sent, where it was put meanwhile.
 *
 * @param name as its sender calls it; nothing is ever opened by it
 */
public record SentFile(String name, Path path) {}
