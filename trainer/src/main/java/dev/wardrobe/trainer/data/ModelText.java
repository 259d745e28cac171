package dev.wardrobe.trainer.data;

import dev.wardrobe.text.ChatTemplate;
import dev.wardrobe.text.TextException;
import dev.wardrobe.text.Tokenizer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collection;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * How a model writes: its tokenizer and its chat template, which are those that serving uses, and
 * the tokens that end what it says. Any of them may be missing: pre-tokenized rows need none.
 */
public final class ModelText implements AutoCloseable {
  private final @Nullable Tokenizer tokenizer;
  private final @Nullable ChatTemplate template;
  private final String noTemplate;
  private final int vocabulary;
  private final Set<Integer> ends;
  private final @Nullable Integer end;

  private ModelText(
      @Nullable Tokenizer tokenizer,
      @Nullable ChatTemplate template,
      String noTemplate,
      int vocabulary,
      Collection<Integer> ends) {
    this.tokenizer = tokenizer;
    this.template = template;
    this.noTemplate = noTemplate;
    this.vocabulary = vocabulary;
    String eos = tokenizer == null ? null : tokenizer.eosToken();
    Integer own = tokenizer == null || eos == null ? null : tokenizer.id(eos);
    this.ends = Set.copyOf(!ends.isEmpty() || own == null ? ends : List.of(own));
    // The server stops at these alone, so that another one would not do.
    this.end =
        own != null && this.ends.contains(own) ? own : ends.stream().findFirst().orElse(null);
  }

  /**
   * Reads a model directory's tokenizer and chat template.
   *
   * @param vocabulary the model's: larger ids are refused
   * @param ends the tokens at which the server stops, {@code eos_token_id}
   * @throws TextException if there is a tokenizer, but it cannot be used
   */
  public static ModelText read(Path directory, int vocabulary, Collection<Integer> ends)
      throws TextException {
    if (!Files.exists(directory.resolve("tokenizer.json"))) {
      return new ModelText(null, null, "the model has no tokenizer", vocabulary, ends);
    }
    Tokenizer tokenizer = Tokenizer.load(directory);
    ChatTemplate template = null;
    String noTemplate = "the model has no chat template";
    try {
      template = ChatTemplate.load(directory, tokenizer.specialTokens());
    } catch (TextException e) {
      noTemplate = "the model's chat template cannot be used: " + e.getMessage();
    }
    return new ModelText(tokenizer, template, noTemplate, vocabulary, ends);
  }

  /** Null if the model has none. */
  public @Nullable Tokenizer tokenizer() {
    return tokenizer;
  }

  /** Null if the model has none that can be used. */
  public @Nullable ChatTemplate template() {
    return template;
  }

  /** Why there is no template. */
  String noTemplate() {
    return noTemplate;
  }

  /** One more than the largest token id. */
  public int vocabulary() {
    return vocabulary;
  }

  /** Whether a token ends what the model says. */
  boolean ends(int token) {
    return ends.contains(token);
  }

  /** The token that is put behind a text that is to end; null if none is known. */
  @Nullable Integer end() {
    return end;
  }

  @Override
  public void close() {
    if (tokenizer != null) {
      tokenizer.close();
    }
  }
}
