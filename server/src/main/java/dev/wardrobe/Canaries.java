package dev.wardrobe;

import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.bench.AdapterSet;
import dev.wardrobe.engine.GenerationTask;
import dev.wardrobe.model.ModelConfig;
import dev.wardrobe.serve.AnswerCollector;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import picocli.CommandLine;

/**
 * A set of adapters that are asked a few prompts, and made anew until each answers otherwise than
 * the base and than all the others: an answer then says who gave it.
 */
final class Canaries implements AutoCloseable {
  /** Within so many tokens two answers differ. */
  static final int TOKENS = 4;

  private static final int PROMPTS = 4;
  private static final int PROMPT_TOKENS = 6;

  /** Requests at a time. */
  private static final int TOGETHER = 64;

  /** How often the same adapter is made anew, at most. */
  private static final int MOST_ROUNDS = 20;

  private final ModelConfig config;
  private final AdapterSet set;
  private final Stack stack;

  /**
   * Starts what answers.
   *
   * @param model the base's directory
   */
  Canaries(Path model, ModelConfig config, AdapterSet set) throws StartException {
    this.config = config;
    this.set = set;
    ModelArguments arguments = new ModelArguments(0);
    new CommandLine(arguments).parseArgs("--model", model.toString());
    stack = new Stack(arguments, List.of(set.folder()), AdapterOptions.DEFAULT);
  }

  /**
   * Makes all adapters differ, and keeps the prompts that show it with the set.
   *
   * @throws StartException if they do not, however often some are made anew
   */
  void tellApart(PrintWriter out) throws StartException, IOException {
    List<List<Integer>> prompts = prompts();
    List<Map<List<Integer>, Integer>> seen = new ArrayList<>();
    for (List<Integer> prompt : prompts) {
      Map<List<Integer>, Integer> answers = new HashMap<>();
      answers.put(ask(List.of(-1), prompt).getFirst(), -1);
      seen.add(answers);
    }
    List<Integer> open = new ArrayList<>();
    for (int i = 0; i < set.count(); i++) {
      open.add(i);
    }
    int remade = 0;
    for (int round = 0; !open.isEmpty(); round++) {
      if (round > MOST_ROUNDS) {
        throw new StartException(
            "%d of %d adapters answer as another one does, however often they are made anew; expected"
                    .formatted(open.size(), set.count())
                + " answers of %d tokens that differ: another --scale, or fewer".formatted(TOKENS));
      }
      TreeSet<Integer> again = new TreeSet<>();
      List<List<List<Integer>>> answers = new ArrayList<>();
      for (List<Integer> prompt : prompts) {
        answers.add(ask(open, prompt));
      }
      for (int i = 0; i < open.size(); i++) {
        int index = open.get(i);
        boolean alone = true;
        for (int p = 0; p < prompts.size(); p++) {
          alone &= !seen.get(p).containsKey(answers.get(p).get(i));
        }
        if (!alone) {
          again.add(index);
          continue;
        }
        for (int p = 0; p < prompts.size(); p++) {
          seen.get(p).put(answers.get(p).get(i), index);
        }
      }
      for (int index : again) {
        set.remake(config, index);
        load(index);
        remade++;
      }
      open = List.copyOf(again);
    }
    set.tellApart(prompts);
    out.printf(
        Locale.ROOT,
        "asked %d prompts: all answers differ within %d tokens; %d adapters were made anew for"
            + " it%n",
        prompts.size(),
        TOKENS,
        remade);
    out.flush();
  }

  private List<List<Integer>> prompts() {
    SplittableRandom random = new SplittableRandom(set.seed());
    List<List<Integer>> prompts = new ArrayList<>();
    for (int i = 0; i < PROMPTS; i++) {
      List<Integer> prompt = new ArrayList<>();
      for (int j = 0; j < PROMPT_TOKENS; j++) {
        prompt.add(random.nextInt(config.vocabulary() / 8, config.vocabulary()));
      }
      prompts.add(prompt);
    }
    return prompts;
  }

  private void load(int index) throws StartException {
    try {
      stack.adapters().load(set.name(index), null).get();
    } catch (ExecutionException e) {
      throw refused(set.name(index), e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new StartException("interrupted", e);
    }
  }

  private static StartException refused(String who, ExecutionException e) {
    Throwable cause = e.getCause() == null ? e : e.getCause();
    return new StartException("%s: %s".formatted(who, cause.getMessage()), cause);
  }

  /** Answers in the adapters' order; -1 is the base. */
  private List<List<Integer>> ask(List<Integer> adapters, List<Integer> prompt)
      throws StartException {
    List<List<Integer>> answers = new ArrayList<>();
    for (int from = 0; from < adapters.size(); from += TOGETHER) {
      List<AnswerCollector> running = new ArrayList<>();
      List<Integer> some = adapters.subList(from, Math.min(from + TOGETHER, adapters.size()));
      for (int index : some) {
        GenerateRequest request =
            GenerateRequest.newBuilder()
                .setAdapter(index < 0 ? "" : set.name(index))
                .addAllTokenIds(prompt)
                .setTemperature(0)
                .setMaxTokens(TOKENS)
                .setIgnoreEos(true)
                .build();
        AnswerCollector answer = new AnswerCollector();
        stack.conversation().start(request, GenerationTask.NO_DEADLINE, answer);
        running.add(answer);
      }
      for (int i = 0; i < running.size(); i++) {
        try {
          GenerateResponse response = running.get(i).result().get();
          answers.add(List.copyOf(response.getTokenIdsList()));
        } catch (ExecutionException e) {
          throw refused(some.get(i) < 0 ? "the base" : set.name(some.get(i)), e);
        } catch (InterruptedException e) {
          Thread.currentThread().interrupt();
          throw new StartException("interrupted", e);
        }
      }
    }
    return answers;
  }

  @Override
  public void close() {
    stack.close();
  }
}
