package dev.wardrobe.model;

import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;

/**
 * Which modules quantization leaves alone, by bitsandbytes' {@code llm_int8_skip_modules}: an entry
 * matches as a regular expression from the start of a module's path up to a module boundary, or as
 * a plain suffix of the path. The head is always left alone.
 */
final class SkipRule {
  private static final String BOUNDARY = "(?:(?<=\\.)|(?=\\.|$))";
  private static final String HEAD = "lm_head";

  private final List<String> entries;
  private final List<Pattern> patterns = new ArrayList<>();

  SkipRule(List<String> skip) throws ModelException {
    entries = new ArrayList<>(skip);
    if (!entries.contains(HEAD)) {
      entries.addFirst(HEAD);
    }
    for (String entry : entries) {
      if (entry.isEmpty()) {
        throw new ModelException("skip: an empty entry would match every module; remove it");
      }
      try {
        patterns.add(Pattern.compile("(?:" + entry + ")" + BOUNDARY));
      } catch (PatternSyntaxException e) {
        throw new ModelException(
            "skip '%s': not a regular expression: %s".formatted(entry, e.getDescription()), e);
      }
    }
  }

  /** The entries, the head's among them. */
  List<String> entries() {
    return List.copyOf(entries);
  }

  boolean skips(String path) {
    for (int i = 0; i < patterns.size(); i++) {
      if (matches(i, path)) {
        return true;
      }
    }
    return false;
  }

  /** Refuses an entry that no projection answers to, which is most likely misspelt. */
  void check(Modules modules) throws ModelException {
    for (int i = 0; i < entries.size(); i++) {
      int entry = i;
      boolean used =
          modules.all().stream()
              .filter(m -> m.kind() == Module.Kind.LINEAR || m.kind() == Module.Kind.HEAD)
              .anyMatch(m -> matches(entry, m.path()));
      if (!used) {
        throw new ModelException(
            "skip '%s': matches no projection of this model; expected a module such as"
                    .formatted(entries.get(i))
                + " model.layers.0.mlp.down_proj, or a suffix such as o_proj");
      }
    }
  }

  private boolean matches(int entry, String path) {
    return patterns.get(entry).matcher(path).lookingAt() || path.endsWith(entries.get(entry));
  }
}
