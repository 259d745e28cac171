package dev.wardrobe.adapter;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.LongAdder;
import org.jspecify.annotations.Nullable;

/**
 * The requests of an alias since it was set as it is: who answers the next one, and what came of
 * the others. Safe for use by all threads.
 */
final class Traffic {
  private final Catalog.Setting setting;
  private final Split split;
  private final List<LongAdder> answered = new ArrayList<>();
  private final @Nullable ShadowTraffic shadow;

  Traffic(Catalog.Setting setting) {
    this.setting = setting;
    List<Catalog.Share> shares = setting.target().shares();
    this.split = new Split(shares.stream().map(Catalog.Share::weight).toList());
    shares.forEach(_ -> answered.add(new LongAdder()));
    this.shadow = setting.shadow() == null ? null : new ShadowTraffic();
  }

  Catalog.Setting setting() {
    return setting;
  }

  /** The digest that answers the next request, which is counted. */
  String next(String alias, @Nullable String key) {
    int share = split.choose(alias, key);
    answered.get(share).increment();
    return setting.target().shares().get(share).digest();
  }

  /** Requests by share. */
  List<Long> answered() {
    return answered.stream().map(LongAdder::sum).toList();
  }

  /** What came of the shadow, or null where there is none. */
  @Nullable ShadowTraffic shadow() {
    return shadow;
  }

  /** Whether the next request is to be asked of the shadow too; drawn. */
  boolean copies() {
    Catalog.Shadow candidate = setting.shadow();
    return candidate != null && ThreadLocalRandom.current().nextDouble() < candidate.fraction();
  }
}
