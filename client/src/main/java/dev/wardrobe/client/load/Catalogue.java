package dev.wardrobe.client.load;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * What each adapter, by its digest, answers alone; the base's digest is empty. So an answer under
 * load can be held against what the digest that it names answers, and a wrong one says whose it is.
 */
final class Catalogue {
  private final Map<String, List<List<Integer>>> answers = new HashMap<>();
  private final List<String> digests = new ArrayList<>();

  /**
   * Adds one.
   *
   * @param answer to each prompt
   */
  void add(String digest, List<List<Integer>> answer) {
    answers.put(digest, answer);
    digests.add(digest);
  }

  /** The i-th that was added. */
  String digest(int i) {
    return digests.get(i);
  }

  boolean knows(String digest) {
    return answers.containsKey(digest);
  }

  /** What a digest that it knows answers to a prompt, the first tokens of it. */
  List<Integer> answer(String digest, int prompt, int tokens) {
    return answers.getOrDefault(digest, List.of()).get(prompt).subList(0, tokens);
  }

  /** Whose answer begins like this; empty if nobody's. */
  String whose(int prompt, List<Integer> tokens) {
    for (Map.Entry<String, List<List<Integer>>> each : answers.entrySet()) {
      List<Integer> known = each.getValue().get(prompt);
      if (tokens.size() <= known.size() && known.subList(0, tokens.size()).equals(tokens)) {
        return each.getKey().isEmpty() ? "the base" : each.getKey();
      }
    }
    return "";
  }

  /** Whether no two answers to a prompt begin with the same tokens, so many of them. */
  boolean differ(int prompts, int tokens) {
    for (int i = 0; i < prompts; i++) {
      Set<List<Integer>> seen = new HashSet<>();
      for (List<List<Integer>> answer : answers.values()) {
        if (!seen.add(answer.get(i).subList(0, tokens))) {
          return false;
        }
      }
    }
    return true;
  }
}
