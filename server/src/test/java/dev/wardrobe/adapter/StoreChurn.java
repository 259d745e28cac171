package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterStoreTest.TIME;
import static dev.wardrobe.adapter.AdapterStoreTest.add;
import static dev.wardrobe.adapter.AdapterStoreTest.config;
import static dev.wardrobe.adapter.AdapterStoreTest.weights;

import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.Random;

/**
 * A process that changes a store without end, to be killed at any moment. What it does, and in
 * which order, its seed says; it prints the number of each change that it has made.
 */
final class StoreChurn {
  private static final int CONTENTS = 24;
  private static final List<String> NAMES = List.of("a", "b", "team/c", "d.e");

  private StoreChurn() {}

  static Content content(int number) {
    byte[] config = config(number);
    byte[] weights = weights(number);
    var configSha = Manifest.sha256();
    configSha.update(config);
    var weightSha = Manifest.sha256();
    weightSha.update(weights);
    return new Manifest(
            new Manifest.Blob(Manifest.digest(configSha), config.length),
            new Manifest.Blob(Manifest.digest(weightSha), weights.length))
        .content();
  }

  /** The content that change {@code number} publishes, if it publishes. */
  private static int published(long seed, int number) {
    return random(seed, number).nextInt(CONTENTS);
  }

  private static Random random(long seed, int number) {
    Random random = new Random(seed * 1_000_003 + number);
    random.nextLong();
    return random;
  }

  private static int kind(long seed, int number) {
    return random(seed + 1, number).nextInt(10);
  }

  /** The catalog after change {@code number}; the same one where there is nothing to change. */
  static Catalog next(Catalog catalog, long seed, int number) {
    Random random = random(seed + 2, number);
    String name = NAMES.get(random.nextInt(NAMES.size()));
    Catalog.Entry entry = catalog.entry(name);
    try {
      if (entry == null || kind(seed, number) < 4) {
        return catalog.publish(
            name, catalog.nextVersion(name), content(published(seed, number)), TIME);
      }
      List<Catalog.Version> versions = entry.versions();
      Catalog.Version one = versions.get(random.nextInt(versions.size()));
      return switch (kind(seed, number)) {
        case 4, 5 ->
            catalog.setAlias(
                name,
                random.nextBoolean() ? "prod" : "canary",
                Catalog.Target.of(one.digest()),
                random.nextBoolean() ? new Catalog.Shadow(versions.getFirst().digest(), 0.5) : null,
                TIME);
        case 6 -> catalog.rollback(name, "prod", TIME);
        case 7 -> catalog.deleteVersion(name, one.label());
        case 8 -> catalog.delete(name);
        default -> catalog; // An upload that is given up.
      };
    } catch (AdapterException e) {
      return catalog; // Refused, as anything may be.
    }
  }

  /** Makes the changes from {@code args[2]} on in the store {@code args[0]}, with a seed. */
  public static void main(String[] args) throws AdapterException {
    long seed = Long.parseLong(args[1]);
    try (AdapterStore store = AdapterStore.open(Path.of(args[0]), StoreOptions.DEFAULT)) {
      for (int number = Integer.parseInt(args[2]); ; number++) {
        int at = number;
        if (kind(seed, at) == 9) {
          byte[] weights = weights(published(seed, at));
          try (Upload upload = store.upload(9, weights.length)) {
            upload.weights(ByteBuffer.wrap(weights));
          }
          add(store, published(seed, at) + CONTENTS).close();
        }
        try (AdapterStore.Hold _ = add(store, published(seed, at))) {
          store.update(catalog -> next(catalog, seed, at));
        }
        System.out.println(at);
      }
    }
  }
}
