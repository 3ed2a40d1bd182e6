"""Special tokens and chat template in the style of Llama 3."""

BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TEXT = "<|end_of_text|>"
START_HEADER = "<|start_header_id|>"
END_HEADER = "<|end_header_id|>"
END_OF_TURN = "<|eot_id|>"
PADDING = "<|finetune_right_pad_id|>"

SPECIAL_TOKENS = (BEGIN_OF_TEXT, END_OF_TEXT, START_HEADER, END_HEADER, END_OF_TURN, PADDING)

# The generation block marks what the assistant says, its calls of tools and its end of turn included, for losses on the
# answers alone. Tools are told in the system's turn, as JSON, and called as {"name": ..., "arguments": ...}.
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- if tools %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{{- messages[0]['content'] | trim + '\\n\\n' }}{%- set messages = messages[1:] %}"
    "{%- endif %}"
    '{{- \'You can call these functions, by {"name": ..., "arguments": ...}:\' }}'
    "{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}"
    "{{- '<|eot_id|>' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- generation %}{{- message['content'] | trim }}"
    "{%- for call in message['tool_calls'] or [] %}{%- set call = call['function'] or call %}"
    "{{- '{\"name\": ' + (call['name'] | tojson) + ', \"arguments\": ' + (call['arguments'] | tojson) + '}' }}"
    "{%- endfor %}"
    "{{- '<|eot_id|>' }}{%- endgeneration %}"
    "{%- else %}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
