/** LoRA adapters: PEFT reader, validation, cache, and the registry that leases them. */
@NullMarked
package dev.wardrobe.adapter;

import org.jspecify.annotations.NullMarked;
