-- In front of the script of an append, with its arguments: takes out all that the thread holds, so that the
-- append finds it empty. Where the append would do nothing, neither does this.

do
  local batch, expected = ARGV[1], ARGV[2]
  local t, problem = load_with()
  if problem then
    return problem
  end
  if not (t and string.find(t.recent, batch, 1, true)) then
    local last = t and t.last or 0
    if expected ~= '' and tonumber(expected) ~= last then
      return {last}
    end
  end
  if t and not string.find(t.recent, batch, 1, true) then
    call('HSETNX', H, 'head', '')  -- refused where the server's memory is full, before anything is lost
    local left = call('PTTL', H)
    call('UNLINK', H, M)
    t.base, t.tail, t.messages, t.pinned, t.bytes, t.tokens = t.last, t.last, 0, 0, 0, 0
    t.recent, t.open, t.pins = #ARGV == 6 and batch or '', '', ''
    t.saved = {recent = '', open = '', pins = ''}
    save(t)
    if left > 0 then
      call('PEXPIRE', H, left)
    end
  end
end
