package dev.wardrobe.engine;

import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.LoraMix;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * What sequences add to the base: adapters with scales, in order. All sequences of the same share
 * one object; the base has none. Belongs to the engine's thread.
 */
final class EffectiveAdapter {
  /** What makes two the same. */
  final Identity identity;

  /** Sequences are planned in the order of these; the base is 0. */
  final int number;

  private final Residency residency;
  private final Residence[] residences;
  private final float[] scales;

  /** Sequences that have it, in the batch or waiting. */
  int sequences;

  private int users;
  private @Nullable LoraMix mix;

  EffectiveAdapter(
      Identity identity, int number, Residency residency, Residence[] residences, float[] scales) {
    this.identity = identity;
    this.residency = residency;
    this.number = number;
    this.residences = residences;
    this.scales = scales;
  }

  int size() {
    return residences.length;
  }

  Residence residence(int i) {
    return residences[i];
  }

  boolean uses(Residence residence) {
    for (Residence each : residences) {
      if (each == residence) {
        return true;
      }
    }
    return false;
  }

  /** Whether all of it is in the backend's memory. */
  boolean ready() {
    for (Residence residence : residences) {
      if (!residence.ready()) {
        return false;
      }
    }
    return true;
  }

  /** When the last of it came into memory. */
  long readyAt() {
    long latest = Long.MIN_VALUE;
    for (Residence residence : residences) {
      latest = Math.max(latest, residence.readyAt);
    }
    return latest;
  }

  /** A sequence joins the batch: from now on it must stay in memory, where it is. */
  void use() {
    for (Residence residence : residences) {
      residency.use(residence);
    }
    if (users++ == 0) {
      mix = whole();
    }
  }

  /** A sequence leaves the batch. */
  void leave() {
    for (Residence residence : residences) {
      residency.leave(residence);
    }
    if (--users == 0) {
      mix = null;
    }
  }

  private @Nullable LoraMix whole() {
    List<Lora> loras = new ArrayList<>();
    for (Residence residence : residences) {
      loras.add(Objects.requireNonNull(residence.resident).lora());
    }
    return LoraMix.of(loras, scales);
  }

  /** What the backend computes with, while a sequence in the batch uses it. */
  @Nullable LoraMix mix() {
    return mix;
  }
}
