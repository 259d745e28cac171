package dev.wardrobe.text;

import java.util.List;

/**
 * What a dict's {@code keys()}, {@code values()} and {@code items()} return.
 *
 * @param type {@code dict_keys}, {@code dict_values} or {@code dict_items}
 */
record DictView(String type, List<Object> items) {}
