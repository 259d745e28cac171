package dev.wardrobe.trainer;

import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.engine.Engine;
import dev.wardrobe.engine.EngineOptions;
import dev.wardrobe.model.Model;
import dev.wardrobe.serve.AnswerCollector;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.serve.Prompts;
import dev.wardrobe.text.TextException;
import dev.wardrobe.trainer.loop.Sampler;
import dev.wardrobe.trainer.loop.TrainingException;
import dev.wardrobe.trainer.report.Answer;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.Message;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * Answers from the engine that serves, over the base that is trained on. Its keys, values and
 * activations are there while it answers, and no longer.
 */
final class ServedSamples implements Sampler, AutoCloseable {
  private static final String NAME = "sampled";

  /** Room for a prompt, beside its answer. */
  private static final int PROMPT_TOKENS = 1024;

  private final Model model;
  private final Backend backend;
  private final Prompts prompts;
  private final List<String> asked;
  private final boolean chat;
  private final int tokens;

  /**
   * @param asked prompts
   * @param chat whether they are a user's messages, if the model has a chat template
   * @param tokens most of an answer
   */
  ServedSamples(Model model, Backend backend, List<String> asked, boolean chat, int tokens)
      throws TextException {
    this.model = model;
    this.backend = backend;
    this.asked = List.copyOf(asked);
    this.chat = chat;
    this.tokens = tokens;
    prompts =
        Prompts.read(
            model.directory(),
            model.config().vocabulary(),
            Thread.ofPlatform().daemon().name("wardrobe-grammar-", 0).factory());
  }

  @Override
  public List<Answer> answers(Path adapter, int step, long time) throws IOException {
    int room = Math.min(model.config().contextLength(), PROMPT_TOKENS + tokens);
    EngineOptions options =
        EngineOptions.DEFAULT.withMaxSequences(asked.size()).withKvTokens(asked.size() * room);
    try (ExecutorService workers =
            Executors.newThreadPerTaskExecutor(
                Thread.ofPlatform().daemon().name("wardrobe-sample-", 0).factory());
        AdapterRegistry adapters =
            new AdapterRegistry(model, backend, List.of(), AdapterOptions.DEFAULT, workers);
        Engine engine = new Engine(model, backend, options)) {
      adapters.loadTrusted(NAME, adapter);
      Conversation conversation =
          new Conversation(
              model, prompts, adapters, engine, workers, Conversation.DEFAULT_MAX_LOGPROBS);
      List<CompletableFuture<GenerateResponse>> answers = new ArrayList<>();
      for (String prompt : asked) {
        GenerateRequest request = request(prompt);
        AnswerCollector collector = new AnswerCollector(request);
        conversation.start(request, collector);
        answers.add(collector.result());
      }
      List<Answer> all = new ArrayList<>();
      for (int i = 0; i < answers.size(); i++) {
        all.add(new Answer(step, time, asked.get(i), answers.get(i).join().getText()));
      }
      return all;
    } catch (AdapterException e) {
      throw new TrainingException("--sample-prompt: " + e.getMessage());
    } catch (CompletionException e) {
      Throwable cause = e.getCause();
      throw new TrainingException(
          "--sample-prompt: "
              + (cause == null ? e.getMessage() : cause.getMessage())
              + "; what was saved is kept, and --resume goes on from it");
    }
  }

  private GenerateRequest request(String prompt) {
    GenerateRequest.Builder request =
        GenerateRequest.newBuilder().setAdapter(NAME).setTemperature(0).setMaxTokens(tokens);
    if (chat && prompts.hasTemplate()) {
      request.addMessages(Message.newBuilder().setRole("user").setContent(prompt));
    } else {
      request.setPrompt(prompt);
    }
    return request.build();
  }

  @Override
  public void close() {
    prompts.close();
  }
}
