package dev.wardrobe.adapter;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A part of what can be asked for by name.
 *
 * @param next the last name, if there are more after it
 * @param revision watching after it misses nothing that is not in the entries
 * @param scanning whether the roots are still being looked through
 */
public record AdapterPage(
    List<AdapterEntry> entries, @Nullable String next, long revision, boolean scanning) {}
