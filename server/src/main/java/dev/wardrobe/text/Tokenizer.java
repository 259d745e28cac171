package dev.wardrobe.text;

import ai.djl.huggingface.tokenizers.jni.CharSpan;
import ai.djl.huggingface.tokenizers.jni.LibUtils;
import ai.djl.huggingface.tokenizers.jni.TokenizersLibrary;
import ai.djl.util.Utils;
import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Collections;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import org.jspecify.annotations.Nullable;

/**
 * A model's tokenizer, as its {@code tokenizer.json} describes it, run by Hugging Face's own
 * library through DJL's binding. It never truncates or pads, and opens no connection: the native
 * library comes out of the jar, and DJL's telemetry and downloads are switched off first.
 *
 * <p>May be used from several threads; {@link #close} waits for calls under way.
 */
public final class Tokenizer implements AutoCloseable {

  /** Far beyond the largest known tokenizer.json, which has 35 MB. */
  private static final long MAX_BYTES = 256 << 20;

  private final Vocabulary vocabulary;
  private final Map<String, String> specialTokens;
  private final long handle;
  private final ReentrantReadWriteLock lock = new ReentrantReadWriteLock();
  private boolean closed;

  /**
   * Characters of the longest text. It holds millions of tokens, and is below what makes the native
   * engine give up on a match (10 million steps, as many blanks in a row), which ends the process.
   */
  static final int MAX_TEXT = 4 << 20;

  private Tokenizer(Vocabulary vocabulary, Map<String, String> specialTokens, long handle) {
    this.vocabulary = vocabulary;
    this.specialTokens = Collections.unmodifiableMap(specialTokens);
    this.handle = handle;
  }

  /**
   * Loads {@code tokenizer.json}, and the names of special tokens from {@code
   * tokenizer_config.json} and {@code special_tokens_map.json} if they are there.
   *
   * @throws TextException if tokenizer.json is missing, or a file is malformed
   */
  public static Tokenizer load(Path modelDir) throws TextException {
    Path file = modelDir.resolve("tokenizer.json");
    String json = JsonFiles.text(file, MAX_BYTES);
    if (json == null) {
      throw new TextException(
          file + " does not exist; only tokenizers in the tokenizers library's format can be used");
    }
    Vocabulary vocabulary = Vocabulary.read(file, json);
    Map<String, String> specialTokens = specialTokens(modelDir);
    TokenizersLibrary library = library();
    long handle;
    try {
      handle = library.createTokenizerFromString(json);
    } catch (RuntimeException e) {
      throw new TextException(file + " is not a valid tokenizer: " + e.getMessage(), e);
    }
    library.disableTruncation(handle);
    library.disablePadding(handle);
    return new Tokenizer(vocabulary, specialTokens, handle);
  }

  /** The native library, loaded on first use with everything that would connect switched off. */
  private static TokenizersLibrary library() throws TextException {
    System.setProperty("OPT_OUT_TRACKING", "true");
    System.setProperty("ai.djl.offline", "true");
    // DJL prefers environment variables to properties.
    if (!Utils.isOfflineMode()) {
      throw new TextException(
          "the environment variable DJL_OFFLINE is set to something else than true, so that the"
              + " tokenizer library might download; unset it");
    }
    try {
      LibUtils.checkStatus();
      return TokenizersLibrary.LIB;
    } catch (RuntimeException | LinkageError e) {
      throw new TextException(
          "the native tokenizer library cannot be loaded on this system: " + e, e);
    }
  }

  private static Map<String, String> specialTokens(Path modelDir) throws TextException {
    Map<String, String> tokens = new TreeMap<>();
    // The configuration wins; the map is what older versions wrote beside it.
    for (String name : new String[] {"special_tokens_map.json", "tokenizer_config.json"}) {
      JsonNode file = JsonFiles.object(modelDir.resolve(name), 64 << 20);
      if (file == null) {
        continue;
      }
      addTokens(file, tokens);
      JsonNode extra = file.path("extra_special_tokens");
      if (extra.isObject()) {
        addTokens(extra, tokens);
      }
    }
    return tokens;
  }

  private static void addTokens(JsonNode object, Map<String, String> tokens) {
    for (Map.Entry<String, JsonNode> field : object.properties()) {
      if (!field.getKey().endsWith("_token")) {
        continue;
      }
      JsonNode value = field.getValue();
      String text = value.isObject() ? value.path("content").textValue() : value.textValue();
      if (text != null) {
        tokens.put(field.getKey(), text);
      }
    }
  }

  /**
   * Turns text into ids, all of it.
   *
   * @param addSpecialTokens whether to add what the tokenizer's post-processor adds, such as a BOS
   * @throws IllegalArgumentException if the text has more than 4,194,304 characters, or the
   *     tokenizer has no tokens for it
   */
  public int[] encode(String text, boolean addSpecialTokens) {
    return encode(text, addSpecialTokens, false).ids();
  }

  /** Turns a rendered conversation into ids and says which of them the assistant wrote. */
  public MaskedTokens encode(RenderedChat chat) {
    return encode(chat, false);
  }

  /**
   * Turns a text into ids and says which of them hold a character of its marked parts.
   *
   * @param addSpecialTokens as for {@link #encode(String, boolean)}
   * @throws IllegalArgumentException as {@link #encode(String, boolean)}
   */
  public MaskedTokens encode(RenderedChat chat, boolean addSpecialTokens) {
    Encoded encoded = encode(chat.text(), addSpecialTokens, true);
    CharSpan[] spans = encoded.spans();
    boolean[] assistant = new boolean[encoded.ids().length];
    // The library counts code points.
    int point = 0;
    int at = 0;
    int next = 0;
    for (RenderedChat.Span span : chat.generated()) {
      int start = point + chat.text().codePointCount(at, span.start());
      int end = start + chat.text().codePointCount(span.start(), span.end());
      at = span.end();
      point = end;
      // Tokens of no character may stand between two that have some.
      int first = -1;
      int last = -1;
      for (int i = next; i < spans.length && (spans[i] == null || spans[i].getStart() < end); i++) {
        if (spans[i] != null && spans[i].getEnd() > start) {
          first = first < 0 ? i : first;
          last = i;
        }
        next = spans[i] == null || spans[i].getEnd() <= end ? i : next;
      }
      if (first >= 0) {
        Arrays.fill(assistant, first, last + 1, true);
      }
    }
    return new MaskedTokens(encoded.ids(), assistant);
  }

  /**
   * Where the first tokens of a text end: what lies behind is in none of them.
   *
   * @param tokens how many, at least 1; special tokens are not added
   * @return an index of {@code text}, its length if there are no more tokens
   * @throws IllegalArgumentException as {@link #encode(String, boolean)}
   */
  public int end(String text, int tokens) {
    Encoded encoded = encode(text, false, true);
    if (encoded.ids().length <= tokens) {
      return text.length();
    }
    int last = tokens - 1;
    while (last >= 0 && encoded.spans()[last] == null) {
      last--;
    }
    return last < 0 ? 0 : text.offsetByCodePoints(0, encoded.spans()[last].getEnd());
  }

  /**
   * Tokens and which of them count in a trainer's loss.
   *
   * @param assistant one flag for each id
   */
  @SuppressWarnings("ArrayRecordComponent")
  public record MaskedTokens(int[] ids, boolean[] assistant) {}

  @SuppressWarnings("ArrayRecordComponent")
  private record Encoded(int[] ids, CharSpan[] spans) {}

  private Encoded encode(String text, boolean addSpecialTokens, boolean withSpans) {
    if (text.length() > MAX_TEXT) {
      throw new IllegalArgumentException(
          "a text of " + text.length() + " characters; at most " + MAX_TEXT + " can be tokenized");
    }
    Lock reading = lock.readLock();
    reading.lock();
    try {
      checkOpen();
      TokenizersLibrary library = TokenizersLibrary.LIB;
      long encoding = library.encode(handle, wellFormed(text), addSpecialTokens);
      try {
        CharSpan[] spans = withSpans ? library.getTokenCharSpans(encoding) : new CharSpan[0];
        return new Encoded(toInts(library.getTokenIds(encoding)), spans);
      } finally {
        library.deleteEncoding(encoding);
      }
    } catch (IllegalStateException e) {
      throw e;
    } catch (RuntimeException e) {
      throw new IllegalArgumentException("the text cannot be tokenized: " + e.getMessage(), e);
    } finally {
      reading.unlock();
    }
  }

  /** Turns ids into text; ids that the tokenizer does not know are left out. */
  public String decode(int[] ids, boolean skipSpecialTokens) {
    long[] wide = new long[ids.length];
    for (int i = 0; i < ids.length; i++) {
      wide[i] = ids[i] & 0xffffffffL;
    }
    Lock reading = lock.readLock();
    reading.lock();
    try {
      checkOpen();
      return TokenizersLibrary.LIB.decode(handle, wide, skipSpecialTokens);
    } finally {
      reading.unlock();
    }
  }

  /** A new detokenizer that takes ids one at a time. */
  public TokenStream stream() {
    return new TokenStream(
        ids -> decode(ids, true),
        id -> id < 0 || vocabulary.isSpecial(id),
        vocabulary.decodesLocally());
  }

  /** One more than the largest token id, added tokens included. */
  public int vocabularySize() {
    return vocabulary.size();
  }

  /**
   * What each token adds to a text.
   *
   * @throws TextException if that cannot be told for this tokenizer
   */
  public TokenBytes tokenBytes() throws TextException {
    return vocabulary.bytes();
  }

  /** The id of a token's text, or null if there is no such token. */
  public @Nullable Integer id(String token) {
    return vocabulary.id(token);
  }

  /** Texts of special tokens by name, such as {@code bos_token}: a chat template's variables. */
  public Map<String, String> specialTokens() {
    return specialTokens;
  }

  public @Nullable String bosToken() {
    return specialTokens.get("bos_token");
  }

  public @Nullable String eosToken() {
    return specialTokens.get("eos_token");
  }

  public @Nullable String padToken() {
    return specialTokens.get("pad_token");
  }

  public @Nullable String unkToken() {
    return specialTokens.get("unk_token");
  }

  @Override
  public void close() {
    Lock writing = lock.writeLock();
    writing.lock();
    try {
      if (!closed) {
        closed = true;
        TokenizersLibrary.LIB.deleteTokenizer(handle);
      }
    } finally {
      writing.unlock();
    }
  }

  private void checkOpen() {
    if (closed) {
      throw new IllegalStateException("the tokenizer is closed");
    }
  }

  private static int[] toInts(long[] ids) {
    int[] narrow = new int[ids.length];
    for (int i = 0; i < ids.length; i++) {
      narrow[i] = Math.toIntExact(ids[i]);
    }
    return narrow;
  }

  /** The text with lone surrogates, which UTF-8 cannot hold, replaced. */
  private static String wellFormed(String text) {
    for (int i = 0; i < text.length(); i++) {
      if (Character.isSurrogate(text.charAt(i))) {
        return text.codePoints()
            .map(c -> Character.isBmpCodePoint(c) && Character.isSurrogate((char) c) ? 0xfffd : c)
            .collect(StringBuilder::new, StringBuilder::appendCodePoint, StringBuilder::append)
            .toString();
      }
    }
    return text;
  }
}
